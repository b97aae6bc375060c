"""Stored rollout states: what comes back, and what a store that holds something else is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ext_proc.core.rollout_json import (
    SCHEMA,
    StateError,
    dump_event,
    dump_state,
    from_plain,
    load_state,
)
from ext_proc.core.rollout_plan import Breach, HardLimit, Hook, LimitKind, MetricKind
from ext_proc.core.rollout_types import (
    Cause,
    Counts,
    Event,
    Evidence,
    Finding,
    MetricEvidence,
    Outcome,
    Phase,
    RolloutState,
)
from tests.support.rollouts import spread

STATE = RolloutState(
    policy="coding",
    canary="canary",
    target="vllm/next",
    fingerprint="w500,a",
    phase=Phase.PROGRESSING,
    step=1,
    weight_per_10k=500,
    hook=Hook.CONFIRM_PROMOTION,
    failures={"evals": 2},
    passed=frozenset({"evals", "prom"}),
    evidence=Evidence(
        epoch=3,
        requests=17,
        cuts={MetricKind.LATENCY_P95: 1.25},
        metrics={MetricKind.ERROR_RATE: MetricEvidence(Counts(n_canary=spread(6)), worse=(-0.5,) * 6)},
        histograms={"latency/baseline": {-3: 5, 12: 1}},
    ),
)
FINDING = Finding(MetricKind.COST, Outcome.WORSE, 0.1, None, 90, 10, 9.5, 6.0, -3.0, 3.0, 1.2)
EVENT = Event(
    policy="coding",
    canary="canary",
    target="vllm/next",
    run=1,
    at=12.5,
    cause=Cause.HARD_LIMIT,
    from_phase=Phase.PROGRESSING,
    to_phase=Phase.ABORTED,
    step=1,
    before_per_10k=500,
    after_per_10k=0,
    text="rolled back",
    findings=(FINDING,),
    breach=Breach(HardLimit(LimitKind.ERROR_RATE, 50, 0.2), 0.5, 50),
)


def test_a_state_comes_back_as_it_was() -> None:
    assert load_state(dump_state(STATE)) == STATE


def test_an_event_is_the_object_that_its_fields_say() -> None:
    plain = json.loads(dump_event(EVENT))
    assert plain.pop("schema") == SCHEMA
    assert from_plain(Event, plain, "event") == EVENT


def test_a_field_that_is_missing_takes_its_default() -> None:
    plain = json.loads(dump_state(STATE))
    del plain["evidence"]
    assert load_state(json.dumps(plain)) == replace(STATE, evidence=Evidence())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schema": SCHEMA + 1}, "state: schema 2 is not 1"),
        ({"phase": "flying"}, "state.phase: 'flying' is none of waiting, progressing"),
        ({"step": True}, "state.step: expected int, found bool"),
        ({"step": "1"}, "state.step: expected int, found str"),
        ({"clock": "now"}, "state.clock: expected float, found str"),
        ({"clock": float("nan")}, "state.clock: nan is not finite"),
        ({"policy": None}, "state.policy: expected str, found NoneType"),
        ({"passed": "evals"}, "state.passed: expected a list, found str"),
        ({"failures": []}, "state.failures: expected an object, found list"),
        ({"failures": {"evals": 0.5}}, "state.failures.evals: expected int, found float"),
        ({"surprise": 1}, "state: unknown field 'surprise'"),
        ({"evidence": {"metrics": {"luck": {}}}}, "state.evidence.metrics: 'luck' is none of error_rate"),
        ({"evidence": {"cuts": {"cost": None}}}, "state.evidence.cuts.cost: expected float"),
        (
            {"evidence": {"histograms": {"x": {"y": 1}}}},
            "state.evidence.histograms.x: 'y' is no whole number",
        ),
        (
            {"evidence": {"metrics": {"cost": {"good": [0.5]}}}},
            "state.evidence.metrics.cost.good: expected 6 numbers or none, found 1",
        ),
        (
            {"evidence": {"metrics": {"cost": {"counts": {"n_canary": [-1] * 64}}}}},
            "state.evidence.metrics.cost.n_canary: a count is negative",
        ),
        ({"step": -1}, "state: no rollout is at step -1"),
        ({"evidence": 7}, "state.evidence: expected an object, found int"),
    ],
)
def test_a_stored_state_that_is_wrong_is_named(changes: dict[str, object], complaint: str) -> None:
    plain = json.loads(dump_state(STATE)) | changes
    with pytest.raises(StateError) as raised:
        load_state(json.dumps(plain))
    assert complaint in str(raised.value)


def test_a_required_field_that_is_missing_is_named() -> None:
    plain = json.loads(dump_state(STATE))
    del plain["target"]
    with pytest.raises(StateError, match="field 'target' is missing"):
        load_state(json.dumps(plain))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff", "[" * 100_000])
def test_what_is_no_json_object_is_a_clear_error(text: str | bytes) -> None:
    with pytest.raises(StateError):
        load_state(text)
