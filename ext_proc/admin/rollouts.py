"""Rollouts over HTTP: anybody who reaches the port may look, only some may change something."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from ext_proc.admin.guard import Guard, error
from ext_proc.core.errors import CommandRefused, StoreError
from ext_proc.core.ports import RolloutControl
from ext_proc.core.rollout_types import Command, Verb

MAX_HISTORY = 10_000
USUAL_HISTORY = 100
MAX_BY_CHARS = 128


class RolloutRoutes:
    """`control` gives None where no rollout is declared."""

    def __init__(self, control: Callable[[], RolloutControl | None], guard: Guard) -> None:
        self._control = control
        self._guard = guard

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/rollouts", self._all),
            web.get("/rollouts/{policy:[^/]+}", self._one),
            web.get("/rollouts/{policy:[^/]+}/history", self._history),
            web.post("/rollouts/{policy:[^/]+}/{verb}", self._command),
        ]

    async def _all(self, _: web.Request) -> web.Response:
        control = self._control()
        if control is None:
            return _answer(200, {"replica": None, "rollouts": []})
        reports = [control.report(policy) for policy in control.policies()]
        return _answer(200, {"replica": control.replica(), "rollouts": reports})

    async def _one(self, request: web.Request) -> web.Response:
        control, policy = self._found(request)
        return _answer(200, {"replica": control.replica(), **control.report(policy)})

    async def _history(self, request: web.Request) -> web.Response:
        control, policy = self._found(request)
        try:
            limit = min(MAX_HISTORY, max(1, int(request.query.get("limit", USUAL_HISTORY))))
        except ValueError:
            raise error(web.HTTPBadRequest, "limit is a whole number") from None
        try:
            lines = await control.history(policy, limit)
        except StoreError as failed:
            raise error(web.HTTPServiceUnavailable, f"the store: {failed.failure}") from None
        return _answer(200, {"policy": policy, "events": [json.loads(line) for line in lines]})

    async def _command(self, request: web.Request) -> web.Response:
        self._guard.check_change(request)
        verb = request.match_info["verb"]
        if verb not in set(Verb):
            raise error(web.HTTPNotFound, f"nothing called {verb[:20]!r} can be done: {', '.join(Verb)}")
        control, policy = self._found(request)
        fields = await _fields(request)
        by, full = fields.get("by", ""), fields.get("full", False)
        if not isinstance(by, str) or not isinstance(full, bool):
            raise error(web.HTTPBadRequest, '"by" is text and "full" true or false')
        command = Command(Verb(verb), by[:MAX_BY_CHARS], full)
        try:
            result = await control.command(policy, command)
        except CommandRefused as refused:
            raise error(web.HTTPConflict, str(refused)) from None
        status = 200 if result == "done" else 202
        return _answer(status, {"result": result, "replica": control.replica(), **control.report(policy)})

    def _found(self, request: web.Request) -> tuple[RolloutControl, str]:
        control, policy = self._control(), request.match_info["policy"]
        if control is None or policy not in control.policies():
            raise error(web.HTTPNotFound, f'no rollout of a policy "{policy[:128]}" is declared')
        return control, policy


async def _fields(request: web.Request) -> Mapping[str, Any]:
    body = await request.read()
    if not body:
        return {}
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise error(web.HTTPBadRequest, "the body is no JSON object")
    return fields


def _answer(status: int, content: Mapping[str, Any]) -> web.Response:
    return web.json_response(content, status=status)
