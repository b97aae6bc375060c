"""Decisions at `/decisions` and, as they come, at `/events`.

A client reads at its own pace from what telemetry keeps anyway, so that a page costs a request nothing. At
many decisions a second it is sent the newest and told how many it missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from ext_proc.admin.guard import error
from ext_proc.telemetry.entries import Entries

MAX_CLIENTS = 16
"""Open pages. One more is told so."""
PERIOD_S = 0.25
AT_ONCE = 50
"""Entries in one event: 200 a second, which is more than anybody reads."""
MAX_AT_ONCE = 500
HEARTBEAT_S = 10.0
SLOW_S = 5.0
"""How long a client may take for what it was sent before it is left."""


async def _are_complete() -> None:
    """Nothing has to be fetched."""


class EventRoutes:
    """`fetch` brings `entries` up to date, where they come from elsewhere."""

    def __init__(self, entries: Entries, fetch: Callable[[], Awaitable[None]] = _are_complete) -> None:
        self._entries = entries
        self._fetch = fetch
        self._closing = asyncio.Event()
        self._clients = 0

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/decisions", self._decisions), web.get("/events", self._events)]

    async def close(self, _: web.Application) -> None:
        """End all streams; nobody waits for them."""
        self._closing.set()

    async def _decisions(self, request: web.Request) -> web.Response:
        try:
            most = min(MAX_AT_ONCE, max(1, int(request.query.get("limit", AT_ONCE))))
        except ValueError:
            raise error(web.HTTPBadRequest, "limit is a whole number") from None
        await self._fetch()
        _, batch = self._batch(self._number(request.query.get("after")), most)
        return web.Response(body=orjson.dumps(batch), content_type="application/json")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._clients >= MAX_CLIENTS:
            raise error(web.HTTPServiceUnavailable, f"{MAX_CLIENTS} pages are open already: close one")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        self._clients += 1
        try:
            await response.prepare(request)
            await self._follow(request, response)
        except (TimeoutError, ConnectionError):
            # Too slow, or gone: what is on its way to it is given up, or the end would wait for it again.
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._clients -= 1
        return response

    async def _follow(self, request: web.Request, response: web.StreamResponse) -> None:
        number = self._number(request.headers.get("last-event-id"))
        silent_s = HEARTBEAT_S
        while request.transport is not None and not request.transport.is_closing():
            await self._fetch()
            last, batch = self._batch(number, AT_ONCE)
            if last != number:
                text = b"id: %s\nevent: decisions\ndata: %s\n\n" % (
                    batch["cursor"].encode(),
                    orjson.dumps(batch),
                )
                number, silent_s = last, 0.0
            elif silent_s >= HEARTBEAT_S:
                text, silent_s = b": nothing new\n\n", 0.0
            else:
                text, silent_s = b"", silent_s + PERIOD_S
            if text:
                async with asyncio.timeout(SLOW_S):
                    await response.write(text)
            try:
                await asyncio.wait_for(self._closing.wait(), PERIOD_S)
            except TimeoutError:
                continue
            return

    def _batch(self, number: int, most: int) -> tuple[int, dict[str, Any]]:
        """What is new, and the number to go on from."""
        batch = self._entries.since(number, most)
        return batch.last, {
            "cursor": f"{self._entries.name}-{batch.last}",
            "skipped": batch.skipped,
            "entries": [
                {"number": entry.number, "at": entry.at, "kind": entry.kind, **entry.fields}
                for entry in batch.entries
            ],
        }

    def _number(self, cursor: str | None) -> int:
        """Where a client was. One that was with another process begins anew."""
        name, _, number = (cursor or "").rpartition("-")
        return int(number) if name == self._entries.name and number.isdecimal() and len(number) < 20 else 0
