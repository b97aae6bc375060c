"""Sums of the last minutes at `/overview`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from ext_proc.admin.guard import Guard
from ext_proc.admin.overview import overview_of
from ext_proc.core.types import Snapshot
from ext_proc.telemetry.activity import Activity


class LiveRoutes:
    """`current` gives the configuration in force; `about` says what is true for the process's life."""

    def __init__(
        self, activity: Activity, current: Callable[[], Snapshot], guard: Guard, about: Mapping[str, Any]
    ) -> None:
        self._activity = activity
        self._current = current
        self._guard = guard
        self._about = about

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/overview", self._overview)]

    async def _overview(self, _: web.Request) -> web.Response:
        found = overview_of(self._current(), self._activity.sums())
        content = {**self._about, "changes": self._guard.changes, **found}
        return web.Response(body=orjson.dumps(content), content_type="application/json")
