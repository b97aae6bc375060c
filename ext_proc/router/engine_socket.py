"""One process holds a router's weights for several servers: JSON over HTTP on a Unix socket.

    POST /prepare  {"policies": [{"name", "description", …}, …]}
    POST /score    {"messages": [[role, text], …], "policies": […], "are_prepared": true}
    200            {"per_policy": [p, …], "none": p, "chosen": i}
    400, 503       {"reason": "router_busy"}

`are_prepared` tells a configuration's policies from those that a request brought along: an engine that does
not know them, because it started later, prepares them then. The socket's file mode is its access control:
whoever may open it may ask.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.ports import Router
from ext_proc.core.types import Message, Policy, Scores
from ext_proc.transport import unix

_MODE = 0o660
_KEPT_SETS = 4
"""Configurations that the engine knows at a time: as many as its router keeps prepared."""
_BODY_LIMIT_BYTES = 64 << 20
_CONNECTIONS = 256


class EngineServer:
    """Answers the servers of this machine with one router, which it owns."""

    def __init__(self, router: Router, path: Path) -> None:
        self._router = router
        self._path = path
        self._prepared: OrderedDict[bytes, tuple[Policy, ...]] = OrderedDict()
        self._preparing = asyncio.Lock()
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
        listener = unix.bound(self._path, _MODE)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._router.close()

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        """Know a configuration's policies before anybody asks. Errors: RouterError."""
        await self._known(_plain(policies))

    async def _prepare(self, request: web.Request) -> web.Response:
        try:
            given = orjson.loads(await request.read())["policies"]
            _policies(given)
        except (ValueError, LookupError, TypeError):
            return _failure(400, Reason.ROUTER_ERROR)
        return await _answered(self._known(given))

    async def _score(self, request: web.Request) -> web.Response:
        try:
            fields = orjson.loads(await request.read())
            messages = tuple(Message(str(role), str(text)) for role, text in fields["messages"])
            given, are_prepared = fields["policies"], fields["are_prepared"]
            policies = _policies(given)
        except (ValueError, LookupError, TypeError):
            return _failure(400, Reason.ROUTER_ERROR)

        async def scored() -> Scores:
            known = await self._known(given) if are_prepared else policies
            return await self._router.score(messages, known)

        return await _answered(scored())

    async def _known(self, given: list[dict[str, Any]]) -> tuple[Policy, ...]:
        """The same object for the same policies, which is how routers know what they have prepared."""
        key = blake2b(orjson.dumps(given), digest_size=16).digest()
        if (known := self._prepared.get(key)) is None:
            async with self._preparing:
                if (known := self._prepared.get(key)) is None:
                    known = _policies(given)
                    await self._router.prepare(known)
                    self._prepared[key] = known
        self._prepared.move_to_end(key)
        while len(self._prepared) > _KEPT_SETS:
            _, unused = self._prepared.popitem(last=False)
            await self._router.forget(unused)
        return known


class EngineClient:
    """Implements `core.ports.Router` by asking an `EngineServer`."""

    def __init__(self, socket: str) -> None:
        self._path = socket
        self._session: aiohttp.ClientSession | None = None
        self._prepared: dict[int, tuple[tuple[Policy, ...], orjson.Fragment]] = {}

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        written = orjson.Fragment(orjson.dumps(_plain(policies)))
        # By identity, as routers do; the entry keeps the policies alive, so their id stays their own.
        self._prepared[id(policies)] = policies, written
        await self._post("prepare", {"policies": written})

    async def forget(self, policies: tuple[Policy, ...]) -> None:
        # The engine lets go of what nobody asks about by itself.
        self._prepared.pop(id(policies), None)

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        """Errors: RouterError: ROUTER_UNREACHABLE without an engine, otherwise what the engine met."""
        known = self._prepared.get(id(policies))
        asked = {
            "messages": [[message.role, message.text] for message in messages],
            "policies": known[1] if known else _plain(policies),
            "are_prepared": known is not None,
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


async def _answered(waiting: Awaitable[Any]) -> web.Response:
    try:
        scores = await waiting
    except RouterError as error:
        return _failure(503, error.reason)
    return web.Response(body=orjson.dumps(asdict(scores) if isinstance(scores, Scores) else {}))


def _failure(status: int, reason: Reason) -> web.Response:
    return web.Response(status=status, body=orjson.dumps({"reason": reason.value}))


def _bytes(fields: dict[str, Any]) -> bytes:
    # Half a surrogate pair is valid in JSON and no UTF-8.
    try:
        return orjson.dumps(fields)
    except TypeError:
        return orjson.dumps(_valid(fields))


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _valid(item) for key, item in value.items()}
    return list(map(_valid, value)) if isinstance(value, list | tuple) else value


def _plain(policies: tuple[Policy, ...]) -> list[dict[str, Any]]:
    return [asdict(policy) for policy in policies]


def _policies(given: list[dict[str, Any]]) -> tuple[Policy, ...]:
    """Errors: ValueError, LookupError, TypeError: what is given has another shape."""
    policies = tuple(
        Policy(
            str(fields["name"]),
            str(fields["description"]),
            None if fields["domain"] is None else str(fields["domain"]),
            tuple(map(str, fields["examples"])),
            tuple(map(str, fields["not_examples"])),
        )
        for fields in given
    )
    if not policies:
        raise ValueError("no policies")
    return policies
