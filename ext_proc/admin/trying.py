"""`POST /try`: what would be decided for a message, and why. Nothing is sent anywhere."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from ext_proc.admin.guard import Guard, error
from ext_proc.core.ports import Explainer
from ext_proc.core.types import Dialect
from ext_proc.telemetry import Telemetry

MAX_AT_ONCE = 2
"""The router has users to answer."""
MAX_BODY_BYTES = 64 << 10


class TryRoutes:
    """It takes the router's time, so it needs what a change needs."""

    def __init__(self, explainer: Explainer | None, guard: Guard, telemetry: Telemetry) -> None:
        self._explainer = explainer
        self._guard = guard
        self._telemetry = telemetry
        self._running = 0

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/try", self._try)]

    async def _try(self, request: web.Request) -> web.Response:
        self._guard.check_change(request)
        if self._explainer is None:
            raise error(web.HTTPNotFound, "nothing can be tried here")
        if self._running >= MAX_AT_ONCE:
            raise error(web.HTTPTooManyRequests, "others are trying messages: try again")
        self._running += 1
        try:
            body, session = _read(await self._body(request))
            return web.json_response(await self._explainer(body, Dialect.CHAT_COMPLETIONS, session))
        except web.HTTPException:
            raise
        except Exception as bug:  # noqa: BLE001 - its text could quote the message, so nobody else may log it
            self._telemetry.bug(bug, "")
            raise error(web.HTTPInternalServerError, "the server has a bug: its log says where") from None
        finally:
            self._running -= 1

    async def _body(self, request: web.Request) -> Any:
        try:
            return json.loads(await request.read())
        except web.HTTPRequestEntityTooLarge:
            text = f"at most {MAX_BODY_BYTES >> 10} KiB can be tried"
            # aiohttp's own error wants sizes and has no place for a text of ours.
            too_large = web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, text=json.dumps({"error": text}))
            too_large.content_type = "application/json"
            raise too_large from None
        except (ValueError, RecursionError):
            raise error(web.HTTPBadRequest, "the body is no JSON object") from None


def _read(fields: Any) -> tuple[bytes, str | None]:
    """The request that a client would send, and its session. Errors: an HTTP error."""
    if not isinstance(fields, dict):
        raise error(web.HTTPBadRequest, "the body is no JSON object")
    message, model, session = (fields.get(name) for name in ("message", "model", "session"))
    messages = fields.get("messages")
    if messages is None and isinstance(message, str):
        messages = [{"role": "user", "content": message}]
    if not isinstance(messages, list):
        raise error(web.HTTPBadRequest, '"message" is text, or "messages" a list as in a chat completion')
    if not all(value is None or isinstance(value, str) for value in (model, session)):
        raise error(web.HTTPBadRequest, '"model" and "session" are text')
    body: dict[str, Any] = {"messages": messages}
    if model:
        body["model"] = model
    return json.dumps(body).encode(), session or None
