"""What would be decided for one request: the path of real ones, of which nothing remains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ext_proc.core.copying import CopyBounds
from ext_proc.core.exchange import Decide, Part, RequestHeaders
from ext_proc.core.explanation import explanation_of
from ext_proc.core.types import Dialect
from ext_proc.server.routing import Live, route_request


async def explain_live(live: Live, body: bytes, dialect: Dialect, session: str | None) -> dict[str, Any]:
    """Decide for one request body, which is copied nowhere, written down nowhere and remembered nowhere.

    The router is asked as ever, within its deadline and from its cache.
    """
    headers = RequestHeaders(path="/v1/chat/completions", session_pin=session)
    request = Decide(Part.REQUEST_BODY, dialect, headers, body)
    alone = replace(live, sessions=None, recorder=None)
    _, outcome = await route_request(alone, request, CopyBounds())
    return explanation_of(outcome, live.snapshot)
