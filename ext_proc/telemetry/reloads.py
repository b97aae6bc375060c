"""What is told of configurations that come into force, or do not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge

from ext_proc.telemetry import log

_PREFIX = "arch_ext_proc_config"


class ReloadOutcome(StrEnum):
    """What became of a reload: in force; a bad file; a good one whose router cannot be made."""

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"


class ReloadTelemetry:
    """Counts and logs reloads."""

    def __init__(self, registry: CollectorRegistry, held: Callable[[], int]) -> None:
        """`held` tells how many replaced routers streams still have."""
        self._reloads = Counter(
            f"{_PREFIX}_reloads",
            "Configurations read anew, by outcome: ok, refused (the file is wrong), failed (it is right, and"
            " its router cannot be made).",
            ("outcome",),
            registry=registry,
        )
        for outcome in ReloadOutcome:
            self._reloads.labels(outcome.value)
        self._at = Gauge(
            f"{_PREFIX}_last_reload_success_timestamp_seconds",
            "When the configuration in force came into force.",
            registry=registry,
        )
        self._good = Gauge(
            f"{_PREFIX}_last_reload_successful",
            "Whether the last reload succeeded: 0 while the file says something that is not in force.",
            registry=registry,
        )
        waiting = Gauge(
            f"{_PREFIX}_replaced_routers_held",
            "Routers that were replaced and that streams in flight still have.",
            registry=registry,
        )
        waiting.set_function(held)

    def began(self, at: float) -> None:
        """The first configuration is in force."""
        self._at.set(at)
        self._good.set(1)

    def applied(
        self, at: float, revision: str, waits_for_restart: Sequence[str], waits_for_envoy: Sequence[str]
    ) -> None:
        """Another configuration is in force."""
        self._reloads.labels(ReloadOutcome.OK.value).inc()
        self.began(at)
        log.event(logging.INFO, "reloaded", revision=revision)
        if waits_for_restart:
            log.event(logging.WARNING, "reload_waits_for_restart", keys=list(waits_for_restart))
        if waits_for_envoy:
            log.event(logging.WARNING, "reload_waits_for_envoy", what=list(waits_for_envoy))

    def refused(self, outcome: ReloadOutcome, problems: Sequence[str]) -> None:
        """Nothing has changed, and why."""
        self._reloads.labels(outcome.value).inc()
        self._good.set(0)
        for problem in problems:
            log.event(logging.ERROR, f"reload_{outcome}", problem=problem)

    def warned(self, problem: str) -> None:
        """The file is in force, and should better say something else."""
        log.event(logging.WARNING, "config", problem=problem)
