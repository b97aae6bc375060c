"""What rollouts tell about themselves: metrics in the server's registry, and log lines."""

from __future__ import annotations

import logging
import traceback

from prometheus_client import CollectorRegistry, Counter, Gauge

from ext_proc.core.errors import StoreFailure
from ext_proc.core.rollout_plan import CheckVerdict
from ext_proc.core.rollout_types import Event, Phase
from ext_proc.core.types import WHOLE_PER_10K
from ext_proc.telemetry import log


class RolloutTelemetry:
    """Labels are bounded: policies, checks and hooks come from the configuration, the rest are enums."""

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "arch_ext_proc_rollout"
        policy = ("policy",)
        self._phase = Gauge(
            f"{prefix}_phase", "1 for the phase that a rollout is in.", (*policy, "phase"), registry=registry
        )
        self._step = Gauge(f"{prefix}_step", "The step a rollout is in, from 0.", policy, registry=registry)
        self._weight = Gauge(
            f"{prefix}_weight", "The canary's share by its weight, 0 to 1.", policy, registry=registry
        )
        self._share = Gauge(
            f"{prefix}_share_observed",
            "The canary's share of the answers seen here at its present weight, 0 to 1.",
            policy,
            registry=registry,
        )
        self._exposed = Gauge(
            f"{prefix}_exposed_requests",
            "Answers that the canary gave in the present run, on all replicas.",
            policy,
            registry=registry,
        )
        self._transitions = Counter(
            f"{prefix}_transitions",
            "Transitions of rollouts, by what caused them.",
            (*policy, "cause"),
            registry=registry,
        )
        self._breaches = Counter(
            f"{prefix}_hard_limits_crossed",
            "Hard limits that were crossed here.",
            (*policy, "limit"),
            registry=registry,
        )
        self._store_errors = Counter(
            f"{prefix}_store_errors", "What the rollout store did not do.", ("failure",), registry=registry
        )
        self._store_up = Gauge(
            f"{prefix}_store_up", "Whether the store did what it was last asked.", registry=registry
        )
        self._lease = Gauge(
            f"{prefix}_lease_held", "Whether this replica drives the rollouts.", registry=registry
        )
        self._hooks = Counter(
            f"{prefix}_hook_calls",
            "Calls of webhooks, by hook and answer.",
            ("hook", "answer"),
            registry=registry,
        )
        self._checks = Counter(
            f"{prefix}_checks", "Answers of external metrics.", ("check", "verdict"), registry=registry
        )
        self._failure: StoreFailure | None = None

    def at(self, policy: str, phase: Phase, step: int, weight_per_10k: int, exposed: int) -> None:
        """Where a rollout is."""
        for one in Phase:
            self._phase.labels(policy, one.value).set(one is phase)
        self._step.labels(policy).set(step)
        self._weight.labels(policy).set(weight_per_10k / WHOLE_PER_10K)
        self._exposed.labels(policy).set(exposed)

    def share_observed(self, policy: str, share: float | None) -> None:
        if share is not None:
            self._share.labels(policy).set(share)

    def gone(self, policy: str) -> None:
        """The file no longer has this rollout."""
        for gauge in (self._phase, self._step, self._weight, self._exposed, self._share):
            gauge.remove_by_labels({"policy": policy})
        log.event(logging.INFO, "rollout_gone", policy=policy)

    def transition(self, event: Event, exposed: int) -> None:
        self._transitions.labels(event.policy, event.cause.value).inc()
        log.event(
            logging.INFO,
            "rollout",
            policy=event.policy,
            target=event.target,
            cause=event.cause.value,
            phase=event.to_phase.value,
            weight=event.after_per_10k / 100,
            exposed=exposed,
            text=event.text,
            by=event.by or None,
        )

    def breached(self, policy: str, limit: str, value: float) -> None:
        """A hard limit was crossed, and the canary's weight is 0 here from now on."""
        self._breaches.labels(policy, limit).inc()
        log.event(logging.WARNING, "rollout_hard_limit", policy=policy, limit=limit, value=round(value, 6))

    def unreadable(self, policy: str, why: str) -> None:
        """A stored state that this version cannot read: its canary gets nothing and nothing is written."""
        self._store_errors.labels(StoreFailure.CORRUPT.value).inc()
        log.event(logging.ERROR, "rollout_unreadable", policy=policy, why=why)

    def store_failed(self, failure: StoreFailure, why: str) -> None:
        """Logged when it begins and when it becomes another failure, counted each time."""
        self._store_errors.labels(failure.value).inc()
        self._store_up.set(0)
        if failure is not self._failure:
            log.event(logging.ERROR, "rollout_store", failure=failure.value, why=why)
        self._failure = failure

    def store_works(self) -> None:
        self._store_up.set(1)
        if self._failure is not None:
            log.event(logging.INFO, "rollout_store", failure=None)
        self._failure = None

    def lease(self, held: bool) -> None:
        self._lease.set(held)
        log.event(logging.INFO, "rollout_lease", held=held)

    def hooked(self, hook: str, answer: str) -> None:
        self._hooks.labels(hook, answer).inc()

    def checked(self, check: str, verdict: CheckVerdict) -> None:
        self._checks.labels(check, verdict.value).inc()

    def bug(self, error: Exception, where: str) -> None:
        """An exception nobody expected. Its text could quote anything, so only its kind is logged."""
        self._store_errors.labels(StoreFailure.OTHER.value).inc()
        frames = traceback.extract_tb(error.__traceback__)
        log.event(
            logging.ERROR,
            "rollout_bug",
            where=where,
            error=type(error).__name__,
            at=" < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames)),
        )
