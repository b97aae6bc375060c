"""One process holds a router's weights for several servers: JSON over HTTP on a Unix socket.

    POST /score  {"messages": [[role, text], …], "policies": [{"name", "description", …}, …]}
    200          {"per_policy": [p, …], "none": p, "chosen": i}
    503          {"reason": "router_busy"}

The socket's file mode is its access control: whoever may open it may ask.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.ports import Router
from ext_proc.core.types import Message, Policy, Scores

_MODE = 0o660
_KEPT_SETS = 16
_BODY_LIMIT_BYTES = 64 << 20
_CONNECTIONS = 256


class EngineServer:
    """Answers the servers of this machine with one router, which it owns."""

    def __init__(self, router: Router, socket: Path) -> None:
        self._router = router
        self._socket = socket
        self._sets: OrderedDict[bytes, tuple[Policy, ...]] = OrderedDict()
        application = web.Application(client_max_size=_BODY_LIMIT_BYTES)
        application.add_routes(
            [
                web.post("/score", self._score),
                web.post("/prepare", self._prepare),
                web.get("/healthz", _healthz),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True)

    async def start(self) -> None:
        """Listen. Errors: OSError when the socket cannot be made."""
        if self._socket.exists() and stat.S_ISSOCK(self._socket.stat().st_mode):
            # What a process that was killed left behind.
            self._socket.unlink()
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._socket)).start()
        os.chmod(self._socket, _MODE)

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._router.close()

    async def _prepare(self, request: web.Request) -> web.Response:
        fields = orjson.loads(await request.read())
        return await _answered(self._router.prepare(self._known(fields["policies"])))

    async def _score(self, request: web.Request) -> web.Response:
        fields = orjson.loads(await request.read())
        messages = tuple(Message(role, text) for role, text in fields["messages"])
        return await _answered(self._router.score(messages, self._known(fields["policies"])))

    def _known(self, given: list[dict[str, Any]]) -> tuple[Policy, ...]:
        """The same object for the same policies, which is how routers know what they have prepared."""
        key = orjson.dumps(given)
        if (known := self._sets.get(key)) is None:
            known = self._sets[key] = tuple(_policy(fields) for fields in given)
            if len(self._sets) > _KEPT_SETS:
                self._sets.popitem(last=False)
        else:
            self._sets.move_to_end(key)
        return known


class EngineClient:
    """Implements `core.ports.Router` by asking an `EngineServer`."""

    def __init__(self, socket: str) -> None:
        self._path = socket
        self._session: aiohttp.ClientSession | None = None

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        await self._post("prepare", {"policies": [asdict(policy) for policy in policies]})

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        """Errors: RouterError: ROUTER_UNREACHABLE without an engine, otherwise what the engine met."""
        asked = {
            "messages": [[message.role, message.text] for message in messages],
            "policies": [asdict(policy) for policy in policies],
        }
        answer = await self._post("score", asked)
        try:
            return Scores(tuple(answer["per_policy"]), answer["none"], answer["chosen"])
        except (KeyError, TypeError) as error:
            raise RouterError(Reason.ROUTER_GARBLED, "the engine's answer has another shape") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post(self, what: str, fields: dict[str, Any]) -> Any:
        if self._session is None:
            # Made where the loop runs. No time limit of its own: the caller's deadline cancels.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self._path, limit=_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        try:
            async with self._session.post(f"http://engine/{what}", data=_bytes(fields)) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise RouterError(
                Reason.ROUTER_UNREACHABLE, f"no engine answers at {self._path}: {type(error).__name__}"
            ) from error
        return _read(answer.status, body)


def _read(status: int, body: bytes) -> Any:
    try:
        fields = orjson.loads(body)
        if status == web.HTTPOk.status_code:
            return fields
        reason = Reason(fields["reason"])
    except (ValueError, KeyError, TypeError) as error:
        raise RouterError(Reason.ROUTER_GARBLED, f"the engine answered with status {status}") from error
    raise RouterError(reason, "the engine could not answer")


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _answered(waiting: Any) -> web.Response:
    try:
        scores = await waiting
    except RouterError as error:
        return web.Response(status=503, body=orjson.dumps({"reason": error.reason.value}))
    return web.Response(body=orjson.dumps(asdict(scores) if scores is not None else {}))


def _bytes(fields: dict[str, Any]) -> bytes:
    # Half a surrogate pair is valid in JSON and no UTF-8.
    try:
        return orjson.dumps(fields)
    except TypeError:
        messages = [[role, text.encode("utf-8", "replace").decode()] for role, text in fields["messages"]]
        return orjson.dumps({**fields, "messages": messages})


def _policy(fields: dict[str, Any]) -> Policy:
    return Policy(
        fields["name"],
        fields["description"],
        fields["domain"],
        tuple(fields["examples"]),
        tuple(fields["not_examples"]),
    )
