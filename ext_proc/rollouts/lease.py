"""The right to look at the rollouts and to write: at any time one replica has it."""

from __future__ import annotations

import time

from ext_proc.core.errors import StoreError
from ext_proc.core.ports import RolloutStore
from ext_proc.telemetry.rollouts import RolloutTelemetry

_NEVER = float("-inf")


class Lease:
    """`token` is what the store wants with each write; None: another replica has the lease, or nobody."""

    def __init__(self, store: RolloutStore, holder: str, ttl_s: float, telemetry: RolloutTelemetry) -> None:
        self._store = store
        self._holder = holder
        self._ttl_s = ttl_s
        self._telemetry = telemetry
        self._renewed_at = _NEVER
        self.token: int | None = None

    async def renew(self) -> bool:
        """Take it or keep it, as far as it is time to. Errors: StoreError.

        Whether it was taken anew: then another replica may have written since, so read before you write.
        """
        now = time.monotonic()
        if self.token is not None and now - self._renewed_at > self._ttl_s:
            self._hold(None)
        if self.token is not None and now - self._renewed_at < self._ttl_s / 3:
            return False
        before = self.token
        self._hold(await self._store.acquire(self._holder, self._ttl_s))
        self._renewed_at = now
        return self.token is not None and self.token != before

    def doubt(self) -> None:
        """Somebody else has written: ask anew who may."""
        self._renewed_at = _NEVER

    async def end(self) -> None:
        """Let another replica take it at once."""
        try:
            await self._store.release(self._holder)
        except StoreError as error:
            self._telemetry.store_failed(error.failure, str(error))

    def _hold(self, token: int | None) -> None:
        if (token is None) != (self.token is None):
            self._telemetry.lease(token is not None)
        self.token = token
