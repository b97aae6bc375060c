"""The one object that counts and logs what happens to requests."""

from __future__ import annotations

import logging
import traceback

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Decide
from ext_proc.core.types import Outcome, Snapshot, Verdict
from ext_proc.core.verdict import confidence
from ext_proc.telemetry import log
from ext_proc.telemetry.activity import Activity
from ext_proc.telemetry.answers import AnswerMetrics

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
INLINE = "(inline)"
"""The policy label of all policies that requests bring along: their names are the clients' choice."""


class Telemetry:
    """Metrics in a registry of their own, and log lines. Each call is a few microseconds, none waits.

    Labels are bounded: policies and models come from the configuration, the rest are enums.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        prefix = "arch_ext_proc"
        self.answers = AnswerMetrics(registry, prefix)
        self.activity = Activity()
        self._decisions = Counter(
            f"{prefix}_decisions",
            "Requests decided, by policy, model, arm of the split, and reason.",
            ("policy", "model", "arm", "reason"),
            registry=registry,
        )
        self._shadows = Counter(
            f"{prefix}_shadows",
            "Requests copied to a shadow target.",
            ("policy", "model"),
            registry=registry,
        )
        self._dropped_copies = Counter(
            f"{prefix}_shadow_copies_dropped",
            "Copies that could not be rewritten for their target and were not sent.",
            ("model",),
            registry=registry,
        )
        self._attempts = Counter(
            f"{prefix}_attempts",
            "Steps of failovers, by target: left (it failed or was ejected, so the next one is tried), "
            "tried (it is that next one), refused (the request could not be made fit for it).",
            ("model", "outcome"),
            registry=registry,
        )
        self._decision_s = Histogram(
            f"{prefix}_decision_seconds",
            "Time from the request's last byte to the answer to Envoy, the router's included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._router_s = Histogram(
            f"{prefix}_router_seconds",
            "Time that requests waited for the router.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._questions = Counter(
            f"{prefix}_router_questions",
            "Questions to the router, by where the answer came from: router, flight (asked at the same time"
            " by another request) or cache.",
            ("source",),
            registry=registry,
        )
        self._router_failures = Counter(
            f"{prefix}_router_failures",
            "Failures of the router in charge, by why and what then: on_failure (a request that it gave no"
            " answer to) or fallback (a question that its fallback router was asked instead).",
            ("reason", "then"),
            registry=registry,
        )
        self._shadow_router = Counter(
            f"{prefix}_shadow_router",
            "Questions that the shadow router was asked too, by the policy of the router in charge and what"
            " the other said: same, other, or failed.",
            ("policy", "said"),
            registry=registry,
        )
        self._unrecorded = Counter(
            f"{prefix}_decisions_not_recorded",
            "Decisions that were due to be recorded and were not.",
            ("reason",),
            registry=registry,
        )
        self._calls = Counter(
            f"{prefix}_llm_calls", "LLM calls read, by API dialect.", ("dialect",), registry=registry
        )
        self._passed = Counter(
            f"{prefix}_passed", "Requests that are no LLM call and went on unread.", registry=registry
        )
        self._streams = Gauge(
            f"{prefix}_streams_in_flight", "Streams that Envoy has open here.", registry=registry
        )
        self._stream_errors = Counter(
            f"{prefix}_stream_errors",
            "Streams on which something happened that should not: a bug, or an unknown message.",
            ("kind",),
            registry=registry,
        )
        self._config = Gauge(
            f"{prefix}_config_info",
            "The revision of the configuration in force.",
            ("revision",),
            registry=registry,
        )

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def question(self, source: str) -> None:
        """A question was answered by the router, by another request's question, or from the cache."""
        self._questions.labels(source).inc()

    def router_failed(self, reason: Reason) -> None:
        """The router gave a request no answer."""
        self._router_failures.labels(reason.value, "on_failure").inc()

    def router_fell_back(self, reason: Reason) -> None:
        """A router's fallback was asked in its place."""
        self._router_failures.labels(reason.value, "fallback").inc()
        self.activity.fault("router", f"{reason.value}, fallback asked")

    def shadow_router_said(self, decided: Verdict, shadow: Verdict) -> None:
        """The shadow router answered what the router in charge had answered."""
        said = "same" if shadow.policy == decided.policy else "other"
        if shadow.failure is not None:
            said = "failed"
        self._shadow_router.labels(decided.policy or "", said).inc()
        log.event(
            logging.DEBUG if said == "same" else logging.INFO,
            "shadow_router",
            said=said,
            policy=decided.policy,
            score=round(confidence(decided), 3),
            shadow_policy=shadow.policy,
            shadow_score=round(confidence(shadow), 3),
            failure=shadow.failure.value if shadow.failure else None,
        )

    def not_recorded(self, reason: str, error: str = "") -> None:
        """A decision could not be written down."""
        self._unrecorded.labels(reason).inc()
        if error:
            log.event(logging.WARNING, "decision_not_recorded", reason=reason, error=error)

    def stream_opened(self) -> None:
        self._streams.inc()

    def stream_closed(self) -> None:
        self._streams.dec()

    def passed(self) -> None:
        """A request that is none of ours."""
        self._passed.inc()

    def configured(self, revision: str) -> None:
        """A configuration came into force."""
        self._config.clear()
        self._config.labels(revision).set(1)

    def unknown_message(self) -> None:
        """Envoy sent a kind of message that this version does not know."""
        self._stream_errors.labels("unknown_message").inc()
        self.activity.fault("stream", "unknown_message")
        log.event(logging.WARNING, "unknown_message")

    def copy_dropped(self, model: str) -> None:
        """A copy was not sent. `model` is empty for one that the configuration does not know."""
        self._dropped_copies.labels(model).inc()
        self.activity.fault("copy dropped", model)
        log.event(logging.WARNING, "copy_dropped", model=model)

    def attempted(self, request: Decide, snapshot: Snapshot, *, is_refused: bool) -> None:
        """Envoy went on to the next target of a chain."""
        left, target = (
            name if name in snapshot.targets else ""
            for name in (request.headers.model, request.headers.attempt)
        )
        outcome = "refused" if is_refused else "tried"
        self._attempts.labels(left, "left").inc()
        self.activity.fault("failover", left)
        self._attempts.labels(target, outcome).inc()
        log.event(
            logging.WARNING,
            "attempt",
            request_id=request.headers.request_id,
            left=left,
            model=target,
            outcome=outcome,
        )

    def bug(self, error: Exception, request_id: str) -> None:
        """An exception nobody expected. Its text could quote a message, so only its place is logged."""
        self._stream_errors.labels("bug").inc()
        self.activity.fault("stream", "bug")
        frames = traceback.extract_tb(error.__traceback__)
        log.event(
            logging.ERROR,
            "bug",
            error=type(error).__name__,
            at=" < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames)),
            request_id=request_id,
        )

    def decided(self, request: Decide, outcome: Outcome, snapshot: Snapshot) -> None:
        """One request was answered."""
        decision = outcome.decision
        policy = decision.policy or ""
        if policy and policy not in snapshot.routes:
            policy = INLINE
        model, reason = decision.target.name, decision.reason
        self._decisions.labels(policy, model, decision.arm or "", reason.value).inc()
        self._calls.labels(request.dialect.value).inc()
        self._decision_s.observe(outcome.total_s)
        if outcome.router_s is not None:
            self._router_s.observe(outcome.router_s)
        if decision.shadow is not None:
            self._shadows.labels(policy, decision.shadow.target.name).inc()
        if outcome.refused is not None:
            self.answers.copy_refused(policy, *outcome.refused)
        score = _score(outcome)
        self.activity.decided(request.headers.request_id, policy, score, outcome)
        log.event(
            logging.WARNING if reason.is_fallback else logging.DEBUG,
            "decided",
            request_id=request.headers.request_id,
            reason=reason.value,
            policy=policy,
            score=score,
            model=model,
            cluster=decision.cluster,
            arm=decision.arm,
            bucket=decision.bucket,
            shadow=decision.shadow.target.name if decision.shadow else None,
            dialect=request.dialect.value,
            body_bytes=len(request.body),
            router_ms=None if outcome.router_s is None else _ms(outcome.router_s),
            total_ms=_ms(outcome.total_s),
        )


def _score(outcome: Outcome) -> float | None:
    """The router's probability for what it said: the policy, or none of them. None: it said nothing."""
    verdict = outcome.verdict
    if verdict is None or verdict.failure is not None:
        return None
    if verdict.policy is None:
        return round(verdict.none, 3)
    return next((round(score, 3) for name, score in verdict.scores if name == verdict.policy), None)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
