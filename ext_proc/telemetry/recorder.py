"""The one object that counts and logs what happens to requests."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from datetime import datetime
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Decide
from ext_proc.core.settings import TelemetrySettings
from ext_proc.core.traceparent import Parent
from ext_proc.core.types import Outcome, Snapshot, Verdict
from ext_proc.core.verdict import confidence
from ext_proc.telemetry import log
from ext_proc.telemetry.activity import Activity
from ext_proc.telemetry.answers import AnswerMetrics
from ext_proc.telemetry.series import ARM, INLINE, MODEL, POLICY, InForce, Series
from ext_proc.telemetry.tracing import Tracing

_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0),
)
_PREFIX = "arch_ext_proc"
MAX_CONTENT_BYTES = 16 << 10
"""How much of a body `log_content` writes."""
_BUG, _UNKNOWN_MESSAGE = "bug", "unknown_message"
CALLER_NAME, CALLER_TOKEN = "name", "token"
"""What a refused caller had wrong."""
_OF_ROUTERS = tuple(reason for reason in Reason if reason.name.startswith("ROUTER_"))


class Telemetry:
    """Metrics in a registry of their own, and log lines. Each call is a few microseconds, none waits.

    Labels are bounded: policies, models and arms are the names of the configuration in force (`follow`),
    the rest are enums.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.in_force = in_force = InForce(_PREFIX)
        registry.register(in_force)
        self._tracing: Tracing | None = None
        self._logs_content = False

        def counter(name: str, text: str, *labels: str) -> Series[Counter]:
            return in_force.bound(
                Series(Counter(f"{_PREFIX}_{name}", text, labels, registry=registry), labels)
            )

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"{_PREFIX}_{name}", text, buckets=_SECONDS, registry=registry)

        self.answers = AnswerMetrics(registry, _PREFIX, in_force)
        self.activity = Activity(named=in_force.named)
        self._decisions = counter(
            "decisions",
            "Requests decided, by policy, model, arm of the split, and reason.",
            *(POLICY, MODEL, ARM, "reason"),
        )
        self._shadows = counter("shadows", "Requests copied to a shadow target.", POLICY, MODEL)
        self._dropped_copies = counter(
            "shadow_copies_dropped",
            "Copies that could not be rewritten for their target and were not sent.",
            MODEL,
        )
        self._attempts = counter(
            "attempts",
            "Steps of failovers, by target: left (it failed or was ejected, so the next one is tried), "
            "tried (it is that next one), refused (the request could not be made fit for it).",
            *(MODEL, "outcome"),
        )
        self._decision_s = histogram(
            "decision_seconds",
            "Time from the request's last byte to the answer to Envoy, the router's included.",
        )
        self._router_s = histogram("router_seconds", "Time that requests waited for the router.")
        self._questions = counter(
            "router_questions",
            "Questions to the router, by where the answer came from: router, flight (asked at the same time"
            " by another request) or cache.",
            "source",
        )
        self._router_failures = counter(
            "router_failures",
            "Failures of the router in charge, by why and what then: on_failure (a request that it gave no"
            " answer to) or fallback (a question that its fallback router was asked instead).",
            *("reason", "then"),
        )
        self._shadow_router = counter(
            "shadow_router",
            "Questions that the shadow router was asked too, by the policy of the router in charge and what"
            " the other said: same, other, or failed.",
            *(POLICY, "said"),
        )
        # A thread counts here, so this one is no `Series`.
        self._unrecorded = Counter(
            f"{_PREFIX}_decisions_not_recorded",
            "Decisions that were due to be recorded and were not.",
            ("reason",),
            registry=registry,
        )
        self._calls = counter("llm_calls", "LLM calls read, by API dialect.", "dialect")
        self._heads = Counter(
            f"{_PREFIX}_decided_by_head",
            "Requests decided by the head of a body that is longer than the decision window.",
            registry=registry,
        )
        self._passed = Counter(
            f"{_PREFIX}_passed", "Requests that are no LLM call and went on unread.", registry=registry
        )
        self._streams = Gauge(
            f"{_PREFIX}_streams_in_flight", "Streams that Envoy has open here.", registry=registry
        )
        self._abandoned = Counter(
            f"{_PREFIX}_streams_abandoned",
            "Streams that Envoy ended before it had the decision: it had waited for too long, or the client"
            " left.",
            registry=registry,
        )
        self._stream_errors = counter(
            "stream_errors",
            "Streams on which something happened that should not: a bug, or an unknown message.",
            "kind",
        )
        self._refused_callers = counter(
            "refused_callers",
            "gRPC calls refused, by what was wrong: name (of the certificate) or token.",
            "reason",
        )
        self._certificate_expiry = Gauge(
            f"{_PREFIX}_certificate_expiry_timestamp_seconds",
            "When the certificate of the gRPC port expires; 0 without TLS.",
            registry=registry,
        )
        # A thread of gRPC's counts here, so this one is no `Series`.
        self._certificate_failures = Counter(
            f"{_PREFIX}_certificate_reload_failures",
            "Changes of the certificate's files that could not be used, so that the old ones stay.",
            registry=registry,
        )
        self._refusals_logged: set[str] = set()
        self._envoy_behind = Counter(
            "arch_ext_proc_envoy_behind",
            "Requests of an Envoy that was rendered from another file and lacks what this one needs.",
            registry=registry,
        )
        self._config = Gauge(
            f"{_PREFIX}_config_info",
            "The revision of the configuration in force.",
            ("revision",),
            registry=registry,
        )
        # A series that begins at 1 has no increase, which alerts look for.
        for kind in (_BUG, _UNKNOWN_MESSAGE):
            self._stream_errors.at(kind)
        for wrong in (CALLER_NAME, CALLER_TOKEN):
            self._refused_callers.at(wrong)
        for reason, then in product(_OF_ROUTERS, ("on_failure", "fallback")):
            self._router_failures.at(reason.value, then)

    def begin(self, settings: TelemetrySettings) -> None:
        """Trace from now on, if the file asks for it. Errors: TracingUnavailable."""
        self._tracing = Tracing(settings.tracing) if settings.tracing is not None else None

    def trace(self, tracing: Tracing) -> None:
        """Tell this of decisions."""
        self._tracing = tracing

    def log_content(self, on: bool) -> None:
        """Whether requests' bodies go into the log. Said once, when it begins."""
        if on and not self._logs_content:
            log.event(logging.WARNING, "log_content", means="bodies of requests are in this log")
        self._logs_content = on

    def close(self) -> None:
        """Send the spans that wait, for a while. Blocks: not for the event loop."""
        if self._tracing is not None:
            self._tracing.close()

    def follow(self, current: Callable[[], Snapshot]) -> None:
        """Take the names that labels may have from the configuration in force, as this tells it."""
        self.in_force.follow(current)

    def envoy_lacked(self) -> None:
        """A request came from an Envoy that cannot follow every decision of the file in force."""
        self._envoy_behind.inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def question(self, source: str) -> None:
        """A question was answered by the router, by another request's question, or from the cache."""
        self._questions.at(source).inc()

    def router_failed(self, reason: Reason) -> None:
        """The router gave a request no answer."""
        self._router_failures.at(reason.value, "on_failure").inc()

    def router_fell_back(self, reason: Reason) -> None:
        """A router's fallback was asked in its place."""
        self._router_failures.at(reason.value, "fallback").inc()
        self.activity.fault("router", f"{reason.value}, fallback asked")

    def shadow_router_said(self, decided: Verdict, shadow: Verdict) -> None:
        """The shadow router answered what the router in charge had answered."""
        said = "same" if shadow.policy == decided.policy else "other"
        if shadow.failure is not None:
            said = "failed"
        self._shadow_router.at(self.in_force.policy(decided.policy or ""), said).inc()
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

    def abandoned(self, request_id: str) -> None:
        """Envoy did not wait for a decision."""
        self._abandoned.inc()
        log.event(logging.INFO, "abandoned", request_id=request_id)

    def passed(self) -> None:
        """A request that is none of ours."""
        self._passed.inc()

    def configured(self, revision: str) -> None:
        """A configuration came into force."""
        self._config.clear()
        self._config.labels(revision).set(1)

    def caller_refused(self, reason: str) -> None:
        """Somebody called who may not. The log tells of the first, since anybody can do so often."""
        self._refused_callers.at(reason).inc()
        if reason not in self._refusals_logged:
            self._refusals_logged.add(reason)
            log.event(logging.WARNING, "caller_refused", reason=reason)

    def certificate(self, not_after: datetime) -> None:
        """A certificate is in use from now on."""
        self._certificate_expiry.set(not_after.timestamp())
        log.event(logging.INFO, "certificate", not_after=not_after.isoformat())

    def certificate_failed(self, problem: str) -> None:
        """The files changed to something that cannot serve. `problem` names a key, never a content."""
        self._certificate_failures.inc()
        log.event(logging.WARNING, "certificate_not_reloaded", problem=problem)

    def unknown_message(self) -> None:
        """Envoy sent a kind of message that this version does not know."""
        self._stream_errors.at(_UNKNOWN_MESSAGE).inc()
        self.activity.fault("stream", "unknown_message")
        log.event(logging.WARNING, "unknown_message")

    def copy_dropped(self, model: str) -> None:
        """A copy was not sent. `model` is empty for one that the configuration does not know."""
        self._dropped_copies.at(self.in_force.model(model)).inc()
        self.activity.fault("copy dropped", model)
        log.event(logging.WARNING, "copy_dropped", model=model)

    def attempted(self, request: Decide, *, is_refused: bool) -> None:
        """Envoy went on to the next target of a chain."""
        left, target = map(self.in_force.model, (request.headers.model, request.headers.attempt))
        outcome = "refused" if is_refused else "tried"
        self._attempts.at(left, "left").inc()
        self._attempts.at(target, outcome).inc()
        self.activity.fault("failover", left)
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
        self._stream_errors.at(_BUG).inc()
        self.activity.fault("stream", "bug")
        frames = traceback.extract_tb(error.__traceback__)
        log.event(
            logging.ERROR,
            "bug",
            error=type(error).__name__,
            at=" < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames)),
            request_id=request_id,
        )

    def decided(self, request: Decide, outcome: Outcome, parent: Parent | None = None) -> None:
        """One request was answered. `parent` is Envoy's span, if it traces; else the client's counts."""
        decision = outcome.decision
        named, reason = self.in_force, decision.reason
        policy = INLINE if decision.inline else named.policy(decision.policy or "")
        model, arm = named.model(decision.target.name), named.arm(decision.arm or "")
        self._decisions.at(policy, model, arm, reason.value).inc()
        if self._tracing is not None:
            self._tracing.decided(request, outcome, parent or request.headers.parent, policy, model)
        if self._logs_content:
            body = request.body[:MAX_CONTENT_BYTES].decode("utf-8", "replace")
            log.event(logging.INFO, "content", request_id=request.headers.request_id, body=body)
        self._calls.at(request.dialect.value).inc()
        if request.is_head:
            self._heads.inc()
        self._decision_s.observe(outcome.total_s)
        if outcome.router_s is not None:
            self._router_s.observe(outcome.router_s)
        if decision.shadow is not None:
            self._shadows.at(policy, named.model(decision.shadow.target.name)).inc()
        if outcome.refused is not None:
            self.answers.copy_refused(policy, *outcome.refused)
        score = _score(outcome)
        self.activity.decided(request.headers.request_id, policy, score, outcome)
        level = logging.WARNING if reason.is_fallback else logging.DEBUG
        if not log.says(level):
            return
        log.event(
            level,
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
