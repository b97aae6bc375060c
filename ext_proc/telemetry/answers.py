"""What is counted and logged of answers, of copies, and of what their comparison says. Numbers and names."""

from __future__ import annotations

import logging
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ext_proc.core.observation import Comparison, Observation
from ext_proc.core.types import CopyRefusal, Shadow
from ext_proc.telemetry import log
from ext_proc.telemetry.series import InForce, Series

_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 25.0, 50.0, 100.0, 300.0)
_SIMILARITIES = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.999)
_RATIOS = (0.1, 0.25, 0.5, 0.8, 0.9, 1.1, 1.25, 2.0, 4.0, 10.0)
_REQUEST = ("policy", "model", "arm")
_WHOSE = ("policy", "model", "role")


class AnswerMetrics:
    """An `ObservationSink` and a `ComparisonSink`. What they are told of has names that are bounded."""

    def __init__(self, registry: CollectorRegistry, prefix: str, in_force: InForce) -> None:
        def counter(name: str, text: str, *labels: str) -> Series[Counter]:
            return in_force.bound(
                Series(Counter(f"{prefix}_{name}", text, labels, registry=registry), labels)
            )

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Series[Histogram]:
            made = Histogram(f"{prefix}_{name}", text, _WHOSE, buckets=buckets, registry=registry)
            return in_force.bound(Series(made, _WHOSE))

        self._answers = counter(
            "answers", "Answers seen, by status class (none: no answer).", *_WHOSE, "arm", "status"
        )
        self._errors = counter(
            "answer_errors",
            "Answers that were the provider's failure: none, 429, 5xx, broken off.",
            *_WHOSE,
            "arm",
        )
        self._cut = counter(
            "answers_cut",
            "Primary answers that stopped early: the client left, or the provider (then an error too).",
            *_WHOSE,
            "arm",
        )
        self._unread = counter(
            "answers_unread",
            "Answers not read to their end: an unknown or damaged coding, or too much when unpacked.",
            *_WHOSE,
        )
        self._unanswered = counter(
            "requests_left", "Observed requests whose client left before an answer began.", *_REQUEST
        )
        self._first_byte_s = histogram("answer_first_byte_seconds", "Time to the first byte.", _SECONDS)
        self._latency_s = histogram("answer_seconds", "Time to the last byte.", _SECONDS)
        self._tokens = counter(
            "answer_tokens", "Tokens, as answers count them, by direction: in or out.", *_WHOSE, "direction"
        )
        self._cost = counter("answer_cost", "What answers cost, by the file's prices.", *_WHOSE)
        self._refused_copies = counter(
            "shadow_copies_refused", "Sampled requests that got no copy, by why.", "policy", "model", "reason"
        )
        self._pairs = counter("pairs", "Answers that met or missed their counterpart.", "outcome")
        self._waiting = Gauge(
            f"{prefix}_pairs_waiting", "Answers in memory that wait for their counterpart.", registry=registry
        )
        self._copies = Gauge(
            f"{prefix}_shadow_copies_in_flight",
            "Copies decided whose answer has not ended.",
            registry=registry,
        )
        self._compared = counter("comparisons", "Answers compared.", *_WHOSE)
        self._agreement = counter(
            "comparison_results",
            "What comparisons found, by measure and result.",
            *_WHOSE,
            "measure",
            "result",
        )
        self._samples_dropped = Counter(
            f"{prefix}_samples_dropped",
            "Compared answers that are not in the samples, because the disk is slow or hangs.",
            registry=registry,
        )
        self._similarity = histogram("comparison_similarity", "Cosine of the answers.", _SIMILARITIES)
        self._length_ratio = histogram(
            "comparison_length_ratio", "The copy's length by the primary's.", _RATIOS
        )

    def observed(self, observation: Observation) -> None:
        whose = (observation.policy, observation.target, observation.role.value)
        arm = observation.arm
        if observation.amends:
            self._errors.at(*whose, arm).inc()
            found = {"request_id": observation.request_id, "model": whose[1]}
            log.event(logging.DEBUG, "broken_off", **found)
            return
        if observation.is_unanswered:
            self._unanswered.at(observation.policy, observation.target, arm).inc()
            log.event(logging.DEBUG, "left", request_id=observation.request_id, model=whose[1])
            return
        status = f"{observation.status // 100}xx" if 100 <= observation.status < 600 else "none"
        self._answers.at(*whose, arm, status).inc()
        if observation.is_error:
            self._errors.at(*whose, arm).inc()
        if observation.cut:
            self._cut.at(*whose, arm).inc()
        elif observation.status:
            self._latency_s.at(*whose).observe(observation.latency_s)
        if observation.unread:
            self._unread.at(*whose).inc()
        if observation.first_byte_s is not None:
            self._first_byte_s.at(*whose).observe(observation.first_byte_s)
        for direction, tokens in (("in", observation.tokens_in), ("out", observation.tokens_out)):
            if tokens is not None:
                self._tokens.at(*whose, direction).inc(tokens)
        if observation.cost is not None:
            self._cost.at(*whose).inc(observation.cost)
        log.event(
            logging.DEBUG,
            "answered",
            request_id=observation.request_id,
            policy=whose[0],
            arm=arm,
            model=whose[1],
            role=observation.role.value,
            status=observation.status,
            latency_ms=_ms(observation.latency_s),
            first_byte_ms=_ms(observation.first_byte_s),
            tokens_in=observation.tokens_in,
            tokens_out=observation.tokens_out,
            cost=observation.cost,
            broken=observation.broken,
            cut=observation.cut,
            unread=observation.unread,
        )

    def follow_copies(self, in_flight: Callable[[], int]) -> None:
        """Ask this how many copies are on their way, whenever metrics are read."""
        self._copies.set_function(in_flight)

    def copy_refused(self, policy: str, shadow: Shadow, reason: CopyRefusal) -> None:
        """A sampled request got no copy."""
        self._refused_copies.at(policy, shadow.target.name, reason.value).inc()

    def paired(self, outcome: str, count: int, waiting: int) -> None:
        """Answers met their counterpart, or did not; `waiting` of them are in memory now."""
        if count:
            self._pairs.at(outcome).inc(count)
        self._waiting.set(waiting)

    def sample_dropped(self) -> None:
        """A pair was compared and is not in the samples."""
        self._samples_dropped.inc()

    def compared(self, comparison: Comparison) -> None:
        whose = (comparison.policy, comparison.shadow_target, comparison.shadow.role.value)
        self._compared.at(*whose).inc()
        results = {
            "exact": comparison.exact,
            "structured": comparison.structured_equal,
            "primary_refused": comparison.primary_refused,
            "shadow_refused": comparison.shadow_refused,
            "judge": comparison.judge,
        }
        for measure, result in results.items():
            if result is not None:
                self._agreement.at(*whose, measure, str(result).lower()).inc()
        if comparison.similarity is not None:
            self._similarity.at(*whose).observe(comparison.similarity)
        if comparison.length_ratio is not None:
            self._length_ratio.at(*whose).observe(comparison.length_ratio)
        log.event(logging.DEBUG, "compared", **figures(comparison))


def figures(comparison: Comparison) -> dict[str, object]:
    """A comparison as names and numbers, for a log line or a page."""
    primary, shadow = comparison.primary, comparison.shadow
    return {
        "at": round(comparison.at, 3),
        "request_id": primary.request_id,
        "policy": comparison.policy,
        "role": shadow.role.value,
        "primary": primary.target,
        "shadow": shadow.target,
        "primary_status": primary.status,
        "shadow_status": shadow.status,
        "exact": comparison.exact,
        "similarity": _rounded(comparison.similarity),
        "length_ratio": _rounded(comparison.length_ratio),
        "structured_equal": comparison.structured_equal,
        "primary_refused": comparison.primary_refused,
        "shadow_refused": comparison.shadow_refused,
        "judge": comparison.judge.value if comparison.judge else None,
        "latency_delta_ms": _ms(shadow.latency_s - primary.latency_s),
        "first_byte_delta_ms": _ms(_delta(shadow.first_byte_s, primary.first_byte_s)),
        "tokens_out_delta": _delta(shadow.tokens_out, primary.tokens_out),
        "cost_delta": _delta(shadow.cost, primary.cost),
    }


def _delta(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
