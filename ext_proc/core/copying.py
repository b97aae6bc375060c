"""How many copies there may be: the bounds of every shadow, kept by whoever decides to make one.

A slot is taken when a copy is decided. It is free again when the copy's answer has ended, when nothing
was heard of the copy for a while (Envoy did not make it), or when Envoy must have given it up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ext_proc.core.types import CopyRefusal, Shadow

CLAIM_S = 15.0
"""How long a copy may take from its decision to its cluster, before it counts as never made."""

_MINUTE_S = 60.0

Copy = tuple[str, str]
"""The pair that a copy belongs to, and the target that gets it."""

ShadowKey = tuple[str, str]
"""A shadow by its policy and its target, both by their names."""


@dataclass(slots=True)
class _Use:
    """What one shadow of one policy has on its way, each until a time, and when it last got copies."""

    slots: dict[Copy, float] = field(default_factory=dict)
    recent: deque[float] = field(default_factory=deque)


class CopyBounds:
    """Admits copies. `limit_s` is when Envoy gives up a copy. `now` is any clock that only goes forward.

    Of `shared_by` processes each admits its part of a shadow's bounds, rounded up so that it may admit what
    one request needs.
    """

    def __init__(self, limit_s: float = 600.0, shared_by: int = 1) -> None:
        self._limit_s = limit_s
        self._shared_by = shared_by
        self._shadows: frozenset[ShadowKey] | None = None
        self._uses: dict[ShadowKey, _Use] = {}
        self._owners: dict[Copy, ShadowKey] = {}

    def on_their_way(self, now: float) -> int:
        """Copies without an answer yet."""
        for use in list(self._uses.values()):
            self._free_expired(use, now)
        return len(self._owners)

    def configure(self, limit_s: float, shadows: frozenset[ShadowKey]) -> None:
        """Take another configuration's limit and shadows.

        Copies on their way keep their slots. Nothing stays of a shadow that is gone once it has none.
        """
        self._limit_s = limit_s
        self._shadows = shadows
        for key in list(self._uses):
            self._drop_if_done(key)

    def admit(
        self,
        policy: str,
        shadow: Shadow,
        copies: Sequence[Copy],
        body_bytes: int,
        now: float,
    ) -> CopyRefusal | None:
        """Take slots for the copies of one request, or say why there are none: all of them or nothing."""
        if body_bytes > shadow.max_body_bytes:
            return CopyRefusal.BODY
        key = policy, shadow.target.name
        use = self._uses.get(key) or _Use()
        max_concurrent = self._part(shadow.max_concurrent, len(copies))
        if len(use.slots) + len(copies) > max_concurrent:
            self._free_expired(use, now)
            if len(use.slots) + len(copies) > max_concurrent:
                return CopyRefusal.CONCURRENT
        while use.recent and (shadow.max_per_minute is None or use.recent[0] <= now - _MINUTE_S):
            use.recent.popleft()
        if shadow.max_per_minute is not None:
            if len(use.recent) + len(copies) > self._part(shadow.max_per_minute, len(copies)):
                return CopyRefusal.RATE
            use.recent.extend([now] * len(copies))
        self._uses[key] = use
        for copy in copies:
            use.slots[copy] = now + CLAIM_S
            self._owners[copy] = key
        return None

    def began(self, copy: Copy, now: float) -> None:
        """A copy is at its cluster: it may take as long as Envoy lets it."""
        if (key := self._owners.get(copy)) is not None:
            self._uses[key].slots[copy] = now + self._limit_s

    def ended(self, copy: Copy) -> None:
        """A copy's answer has ended, one way or another."""
        if (key := self._owners.pop(copy, None)) is not None:
            self._uses[key].slots.pop(copy, None)
            self._drop_if_done(key)

    def _drop_if_done(self, key: ShadowKey) -> None:
        if self._shadows is not None and key not in self._shadows and not self._uses[key].slots:
            del self._uses[key]

    def _part(self, bound: int, at_least: int) -> int:
        """This process's part of a bound, never more than the whole."""
        return min(bound, max(at_least, -(-bound // self._shared_by)))

    def _free_expired(self, use: _Use, now: float) -> None:
        for copy in [copy for copy, deadline in use.slots.items() if deadline <= now]:
            self.ended(copy)
