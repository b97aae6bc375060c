"""Who may do what on the admin port: anybody who reaches it may look, only some may change something.

With `admin.token` in the file, a change needs it as a bearer token. Without one, changes are taken on a
loopback address only, and not from another site's page in somebody's browser: the request must be JSON, which
such a page cannot send unasked, addressed to a loopback host, which a name made to point here is not, and
come from no other origin. Under such a name nobody may look either: what a loopback address shows is for this
machine.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from ext_proc.core.settings import Address, is_loopback
from ext_proc.core.types import Secret
from ext_proc.transport.admin_port import HEALTH, METRICS, READY

FOR_MACHINES = frozenset({HEALTH, READY, METRICS})
"""What probes and scrapers ask for, by whatever name they know this port."""


class Guard:
    """The rules for one admin address. `token` gives the one in force; None: the file has none."""

    def __init__(self, address: Address, token: Callable[[], Secret | None]) -> None:
        self._token = token
        self._is_loopback = is_loopback(address.host)

    @property
    def changes(self) -> Literal["token", "free", "off"]:
        """What a change needs: a token, nothing on this machine, or it is not possible here."""
        if self._token() is not None:
            return "token"
        return "free" if self._is_loopback else "off"

    @web.middleware
    async def check_host(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse whoever asks a loopback address by a name of another place."""
        if self._is_loopback and request.path not in FOR_MACHINES and not is_loopback(_host_of(request)):
            raise error(web.HTTPForbidden, "this is a loopback address: ask for it as 127.0.0.1 or localhost")
        return await handler(request)

    def check_change(self, request: web.Request) -> None:
        """Errors: an HTTP error for whoever may change nothing."""
        token = self._token()
        if token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            is_right = hmac.compare_digest(
                given.strip().encode("utf-8", "surrogateescape"), token.reveal().encode()
            )
            if scheme.lower() != "bearer" or not is_right:
                text = "this needs admin.token as a bearer token"
                raise error(web.HTTPUnauthorized, text, {"www-authenticate": "Bearer"})
        elif not self._is_loopback:
            text = "nothing can be changed here: the file has no admin.token, and this is no loopback address"
            raise error(web.HTTPForbidden, text)
        elif not is_loopback(_host_of(request)) or request.content_type != "application/json":
            text = "without admin.token, only JSON addressed to a loopback host is taken"
            raise error(web.HTTPForbidden, text)
        elif _netloc(request.headers.get("origin", f"http://{request.host}")) != request.host:
            raise error(web.HTTPForbidden, "without admin.token, nothing is taken from another site's page")


def error(
    kind: type[web.HTTPException], text: str, headers: Mapping[str, str] | None = None
) -> web.HTTPException:
    """An HTTP error whose body is JSON."""
    return kind(text=json.dumps({"error": text}), content_type="application/json", headers=headers)


def _host_of(request: web.Request) -> str:
    """The host that a request is addressed to, without its port; empty for what is none."""
    try:
        return request.url.host or ""
    except ValueError:
        return ""


def _netloc(url: str) -> str:
    """Host and port; empty for what is no URL."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""
