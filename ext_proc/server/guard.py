"""Who may call the gRPC service: whoever does can ask for the providers' keys, and feed it false answers.

Three things can be asked of a caller, each if the file says so: a certificate (TLS itself sees to that), a
name in it, and a token. Health checks need none: they tell nothing but that the server lives.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from ext_proc.core import headers
from ext_proc.core.settings import ServerSettings
from ext_proc.telemetry import Telemetry
from ext_proc.telemetry.recorder import CALLER_NAME, CALLER_TOKEN

Handler = Callable[[Any, Any], Awaitable[Any]]

_SAN = "x509_subject_alternative_name"
"""gRPC's property of a peer: one entry for each name in its certificate, whatever its kind."""


class Guard:
    """Lets a handler see those calls alone that may be made."""

    def __init__(self, settings: ServerSettings, telemetry: Telemetry) -> None:
        self._token = settings.token.reveal().encode() if settings.token is not None else None
        self._names = frozenset(name.encode() for name in settings.tls.client_names) if settings.tls else None
        self._telemetry = telemetry

    def guarded(self, handler: Handler) -> Handler:
        """The same handler, if there is nothing to ask of a caller."""
        if self._token is None and not self._names:
            return handler

        async def admit(request: Any, context: Any) -> Any:
            reason = self._refusal(context)
            if reason is None:
                return await handler(request, context)
            self._telemetry.caller_refused(reason)
            return await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this caller is not known here")

        return admit

    def _refusal(self, context: Any) -> str | None:
        if self._names and self._names.isdisjoint(context.auth_context().get(_SAN, ())):
            return CALLER_NAME
        if self._token is not None:
            given = dict(context.invocation_metadata()).get(headers.TOKEN, "")
            if not isinstance(given, str) or not hmac.compare_digest(given.encode(), self._token):
                return CALLER_TOKEN
        return None
