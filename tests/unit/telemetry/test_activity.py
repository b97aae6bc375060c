from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from ext_proc.core.errors import Reason
from ext_proc.core.observation import Observation, Role
from ext_proc.core.types import Decision, Outcome
from ext_proc.telemetry.activity import BOUNDS_MS, MAX_ID_CHARS, SLOT_S, SLOTS, Activity, times_of
from ext_proc.telemetry.entries import KEPT
from tests.support.builders import a_target

NOW = 1_000_000.0


@dataclass
class Clocked:
    now: list[float] = field(default_factory=lambda: [NOW])

    def __post_init__(self) -> None:
        self.activity = Activity(clock=lambda: self.now[0])

    def decides(self, times: int = 1, request_id: str = "r", **changes: Any) -> None:
        decision = Decision(**{"target": a_target(), "reason": Reason.POLICY, "arm": "baseline", **changes})
        outcome = Outcome(decision, total_s=0.004, router_s=0.003)
        for _ in range(times):
            self.activity.decided(request_id, "coding", 0.9, outcome)

    def answers(self, **changes: Any) -> None:
        given = {"request_id": "r", "policy": "coding", "arm": "baseline", "target": "openai/small"}
        told: dict[str, Any] = {**given, "role": Role.PRIMARY, "status": 200, "latency_s": 0.5, "at": 0.0}
        self.activity.observed(Observation(**{**told, **changes}))

    def arm(self) -> dict[str, Any]:
        (found,) = self.activity.sums()["arms"]
        return found


def test_a_decision_is_told_in_names_and_numbers() -> None:
    clocked = Clocked()
    clocked.decides()
    (entry,) = clocked.activity.entries.since(0, 10).entries
    assert (entry.number, entry.at, entry.kind) == (1, NOW, "decision")
    assert entry.fields == {
        "request_id": "r",
        "policy": "coding",
        "reason": "policy",
        "fallback": False,
        "score": 0.9,
        "model": "openai/small",
        "arm": "baseline",
        "shadow": None,
        "router_s": 0.003,
        "total_s": 0.004,
    }


def test_a_reader_goes_on_where_it_was_and_is_told_what_it_missed() -> None:
    clocked = Clocked()
    clocked.decides(10)
    first = clocked.activity.entries.since(0, 4)
    assert ([entry.number for entry in first.entries], first.skipped, first.last) == ([7, 8, 9, 10], 0, 10)
    assert clocked.activity.entries.since(10, 4).entries == ()
    clocked.decides(6)
    second = clocked.activity.entries.since(10, 4)
    assert ([entry.number for entry in second.entries], second.skipped) == ([13, 14, 15, 16], 2)
    clocked.decides(2 * KEPT)
    late = clocked.activity.entries.since(16, 10 * KEPT)
    assert (len(late.entries), late.skipped) == (KEPT, KEPT)


def test_a_clients_own_request_id_is_cut() -> None:
    clocked = Clocked()
    clocked.decides(request_id="x" * 10_000)
    assert len(clocked.activity.entries.since(0, 1).entries[0].fields["request_id"]) == MAX_ID_CHARS


def test_a_trend_has_a_number_for_each_slot_and_forgets_the_old_ones() -> None:
    clocked = Clocked()
    clocked.decides(3)
    clocked.now[0] += 2 * SLOT_S
    clocked.decides(5)
    arm = clocked.arm()
    assert (arm["decided"], arm["trend"][-3:], len(arm["trend"])) == (8, [3, 0, 5], SLOTS)
    assert clocked.activity.sums()["decided"][-3:] == [3, 0, 5]
    clocked.now[0] += (SLOTS - 1) * SLOT_S
    assert clocked.arm()["trend"][0] == 5
    clocked.now[0] += SLOT_S
    assert clocked.activity.sums()["arms"] == []


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    clocked = Clocked()
    clocked.decides()
    clocked.now[0] -= 1_000.0
    clocked.decides()
    assert clocked.arm()["trend"][-1] == 2


def test_answers_are_counted_beside_the_decisions_and_copies_are_not() -> None:
    clocked = Clocked()
    clocked.answers()
    clocked.answers(status=503)
    clocked.answers(cut=True)
    clocked.answers(cut=True, broken=True)  # which adds to the one before
    clocked.answers(role=Role.SHADOW)
    arm = clocked.arm()
    assert (arm["answered"], arm["failed"]) == (3, 2)
    assert clocked.activity.sums()["faults"] == [{"kind": "provider", "what": "openai/small", "count": 2}]
    kinds = [(entry.kind, entry.fields["status"]) for entry in clocked.activity.entries.since(0, 9).entries]
    assert kinds == [("answer", 200), ("answer", 503), ("answer", 200), ("answer", 200)]


def test_reasons_say_whether_they_are_fallbacks() -> None:
    clocked = Clocked()
    clocked.decides(2)
    clocked.decides(reason=Reason.ROUTER_TIMEOUT, arm=None)
    assert clocked.activity.sums()["reasons"] == [
        {"reason": "policy", "count": 2, "fallback": False},
        {"reason": "router_timeout", "count": 1, "fallback": True},
    ]


def test_faults_are_counted_by_kind_and_name() -> None:
    clocked = Clocked()
    for what in ("bug", "bug", "unknown_message"):
        clocked.activity.fault("stream", what)
    assert clocked.activity.sums()["faults"] == [
        {"kind": "stream", "what": "bug", "count": 2},
        {"kind": "stream", "what": "unknown_message", "count": 1},
    ]


@pytest.mark.parametrize("seconds", [0.0, 0.00001, 0.004, 0.7, 3_600.0])
def test_times_are_within_their_bucket(seconds: float) -> None:
    clocked = Clocked()
    outcome = Outcome(Decision(a_target(), Reason.POLICY), total_s=seconds)
    clocked.activity.decided("r", "", None, outcome)
    found = clocked.activity.sums()["decision"]
    at_most = min(BOUNDS_MS[-1], max(BOUNDS_MS[0], seconds * 1000 * 1.25))
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= at_most + 0.001
    assert found["p99_ms"] >= min(BOUNDS_MS[-1] / 1.25, seconds * 1000 / 1.25)
    assert clocked.activity.sums()["router"]["p50_ms"] is None


def test_quantiles_of_many_times() -> None:
    at_5_ms = next(at for at, bound in enumerate(BOUNDS_MS) if bound > 5)
    found = times_of({at_5_ms: 98, at_5_ms + 10: 2})
    assert found["count"] == 100
    assert BOUNDS_MS[at_5_ms - 1] < found["p50_ms"] < BOUNDS_MS[at_5_ms]
    assert BOUNDS_MS[at_5_ms + 9] < found["p99_ms"] < BOUNDS_MS[at_5_ms + 10]
