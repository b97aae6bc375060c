"""Rollouts over HTTP: anybody who reaches the port may look, only some may change something.

With `admin.token` in the file, a change needs it as a bearer token. Without one, changes are taken on a
loopback address only, and not from a page in somebody's browser: the request must be JSON, which a page of
another origin cannot send unasked, and must be addressed to a loopback host, which a name that was made to
point here is not.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ext_proc.core.errors import CommandRefused, StoreError
from ext_proc.core.ports import RolloutControl
from ext_proc.core.rollout_types import Command, Verb
from ext_proc.core.settings import Address
from ext_proc.core.types import Secret

MAX_HISTORY = 10_000
USUAL_HISTORY = 100
MAX_BY_CHARS = 128


class RolloutRoutes:
    """`control` is None where no rollout is declared."""

    def __init__(self, control: RolloutControl | None, address: Address, token: Secret | None) -> None:
        self._control = control
        self._token = token
        self._is_loopback = _is_loopback(address.host)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/rollouts", self._all),
            web.get("/rollouts/{policy}", self._one),
            web.get("/rollouts/{policy}/history", self._history),
            web.post("/rollouts/{policy}/{verb}", self._command),
        ]

    async def _all(self, _: web.Request) -> web.Response:
        if self._control is None:
            return _answer(200, {"replica": None, "rollouts": []})
        reports = [self._control.report(policy) for policy in self._control.policies()]
        return _answer(200, {"replica": self._control.replica(), "rollouts": reports})

    async def _one(self, request: web.Request) -> web.Response:
        control, policy = self._found(request)
        return _answer(200, {"replica": control.replica(), **control.report(policy)})

    async def _history(self, request: web.Request) -> web.Response:
        control, policy = self._found(request)
        try:
            limit = min(MAX_HISTORY, max(1, int(request.query.get("limit", USUAL_HISTORY))))
        except ValueError:
            raise _error(web.HTTPBadRequest, "limit is a whole number") from None
        try:
            lines = await control.history(policy, limit)
        except StoreError as error:
            raise _error(web.HTTPServiceUnavailable, f"the store: {error.failure}") from None
        return _answer(200, {"policy": policy, "events": [json.loads(line) for line in lines]})

    async def _command(self, request: web.Request) -> web.Response:
        self._check_permission(request)
        verb = request.match_info["verb"]
        if verb not in set(Verb):
            raise _error(web.HTTPNotFound, f"nothing called {verb[:20]!r} can be done: {', '.join(Verb)}")
        control, policy = self._found(request)
        fields = await _fields(request)
        by, full = fields.get("by", ""), fields.get("full", False)
        if not isinstance(by, str) or not isinstance(full, bool):
            raise _error(web.HTTPBadRequest, '"by" is text and "full" true or false')
        command = Command(Verb(verb), by[:MAX_BY_CHARS], full)
        try:
            result = await control.command(policy, command)
        except CommandRefused as refused:
            raise _error(web.HTTPConflict, str(refused)) from None
        status = 200 if result == "done" else 202
        return _answer(status, {"result": result, "replica": control.replica(), **control.report(policy)})

    def _found(self, request: web.Request) -> tuple[RolloutControl, str]:
        policy = request.match_info["policy"]
        if self._control is None or policy not in self._control.policies():
            raise _error(web.HTTPNotFound, f'no rollout of a policy "{policy[:128]}" is declared')
        return self._control, policy

    def _check_permission(self, request: web.Request) -> None:
        if self._token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            is_right = hmac.compare_digest(given.strip().encode(), self._token.reveal().encode())
            if scheme.lower() != "bearer" or not is_right:
                raise _error(
                    web.HTTPUnauthorized,
                    "this needs admin.token as a bearer token",
                    {"www-authenticate": "Bearer"},
                )
        elif not self._is_loopback:
            text = "nothing can be changed here: the file has no admin.token, and this is no loopback address"
            raise _error(web.HTTPForbidden, text)
        elif not _is_loopback(request.url.host or "") or request.content_type != "application/json":
            text = "without admin.token, only JSON addressed to a loopback host is taken"
            raise _error(web.HTTPForbidden, text)


async def _fields(request: web.Request) -> Mapping[str, Any]:
    body = await request.read()
    if not body:
        return {}
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise _error(web.HTTPBadRequest, "the body is no JSON object")
    return fields


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _answer(status: int, content: Mapping[str, Any]) -> web.Response:
    return web.json_response(content, status=status)


def _error(
    kind: type[web.HTTPException], text: str, headers: Mapping[str, str] | None = None
) -> web.HTTPException:
    return kind(text=json.dumps({"error": text}), content_type="application/json", headers=headers)
