"""What holds of a rollout whatever it is told, in whatever order, on whatever clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import Phase as Phases
from hypothesis import given, settings
from hypothesis import strategies as st

from ext_proc.core.rollout import declared, step
from ext_proc.core.rollout_json import StateError, dump_event, dump_state, from_plain, load_state
from ext_proc.core.rollout_plan import (
    DEFAULT_RULES,
    Analysis,
    Answer,
    Breach,
    CheckResult,
    CheckVerdict,
    HardLimit,
    Hook,
    LimitKind,
    MetricKind,
    OnFailure,
    Pause,
    Promotion,
    RolloutPlan,
    SetWeight,
)
from ext_proc.core.rollout_plan import Step as PlanStep
from ext_proc.core.rollout_types import Cause, Command, Event, HookAnswer, Inputs, Phase, RolloutState, Verb
from ext_proc.core.rollout_words import findings, open_questions, refusal
from tests.support.rollouts import a_plan, a_window

walking = settings(deadline=None, max_examples=25, phases=[Phases.explicit, Phases.reuse, Phases.generate])
"""Without shrinking, which takes minutes for a walk and finds little."""

KINDS = [MetricKind.ERROR_RATE, MetricKind.COST, MetricKind.JUDGE]


@st.composite
def step_lists(draw: st.DrawFn) -> tuple[PlanStep, ...]:
    weights = sorted(draw(st.sets(st.integers(1, 10_000), min_size=1, max_size=4)))
    found: list[PlanStep] = []
    for weight in weights:
        found.append(SetWeight(weight))
        found += draw(st.lists(st.sampled_from([Analysis(), Pause(60.0), Pause()]), max_size=2))
    return tuple(found)


plans: st.SearchStrategy[RolloutPlan] = st.builds(
    a_plan,
    steps=step_lists(),
    target=st.sampled_from(["vllm/next", "vllm/other"]),
    min_requests=st.sampled_from([0, 300]),
    metrics=st.sets(st.sampled_from(KINDS)).map(
        lambda kinds: tuple(map(DEFAULT_RULES.__getitem__, sorted(kinds)))
    ),
    checks=st.sampled_from([(), ("evals",)]),
    on_failure=st.sampled_from(OnFailure),
    promotion=st.sampled_from(Promotion),
    hooks=st.frozensets(st.sampled_from(Hook)),
    deadline_s=st.sampled_from([120.0, 86_400.0]),
    auto_start=st.booleans(),
)


@st.composite
def inputs_for(draw: st.DrawFn, state: RolloutState) -> Inputs:
    """Mostly what a controller would give, stale things among it."""
    commands = st.builds(Command, st.sampled_from(Verb), full=st.booleans())
    answers = st.builds(
        HookAnswer,
        st.sampled_from(Hook),
        st.just(state.run),
        st.sampled_from([state.step, state.step + 1]),
        st.sampled_from(Answer),
    )
    windows = st.builds(
        a_window,
        st.just(state),
        canary=st.sampled_from([(0, 400), (8, 400), (200, 400), (0, 0)]),
        baseline=st.sampled_from([(0, 8000), (160, 8000), (0, 0)]),
        kind=st.sampled_from(KINDS),
    )
    breach = Breach(HardLimit(LimitKind.ERROR_RATE, 20, 0.3), 0.5, 20)
    checks = st.dictionaries(
        st.sampled_from(["evals", "strange"]), st.builds(CheckResult, st.sampled_from(CheckVerdict))
    )
    return Inputs(
        window=draw(st.none() | windows),
        commands=tuple(draw(st.lists(commands, max_size=2))),
        answers=tuple(draw(st.lists(answers, max_size=2))),
        checks=draw(checks),
        breach=draw(st.sampled_from([None, None, None, None, breach])),
    )


def looks(data: st.DataObject, some_plans: Sequence[RolloutPlan], length: int = 7) -> Any:
    """Walk a rollout, changing its plan now and then; yields before, plan, inputs, after, events."""
    now, plan = 1000.0, some_plans[0]
    state = declared(plan, now)
    for _ in range(length):
        plan = data.draw(st.sampled_from([plan, plan, plan, *some_plans]))
        now += data.draw(st.sampled_from([0.0, 60.0, 60.0, 600.0, -3600.0]))
        inputs = data.draw(inputs_for(state))
        after, events = step(state, plan, inputs, now)
        yield state, plan, inputs, after, events
        state = after


@walking
@given(st.lists(plans, min_size=1, max_size=2), st.data())
def test_no_sequence_takes_a_rollout_outside_of_its_steps(
    some_plans: list[RolloutPlan], data: st.DataObject
) -> None:
    for before, plan, _, after, events in looks(data, some_plans):
        assert after.weight_per_10k in (*plan.weights, 10_000)
        assert 0 <= after.step <= len(plan.steps)
        assert (after.weight_per_10k == 10_000) or after.phase is not Phase.PROMOTED
        assert (after.weight_per_10k == 0) or after.phase not in (Phase.ABORTED, Phase.WAITING)
        # The events tell the whole story: from where it was to where it is, without a gap.
        phases = [(event.from_phase, event.to_phase) for event in events]
        weights = [(event.before_per_10k, event.after_per_10k) for event in events]
        for ends, was, has in (
            (phases, before.phase, after.phase),
            (weights, before.weight_per_10k, after.weight_per_10k),
        ):
            assert [was, *(to for _, to in ends)] == [*(came for came, _ in ends), has]


@walking
@given(st.lists(plans, min_size=1, max_size=2), st.data())
def test_what_is_over_stays_over_but_for_a_command_or_another_target(
    some_plans: list[RolloutPlan], data: st.DataObject
) -> None:
    for before, plan, inputs, after, events in looks(data, some_plans):
        if before.phase.is_over and not inputs.commands and before.target == plan.target:
            assert (after.phase, after.weight_per_10k) == (before.phase, before.weight_per_10k)
            assert events == ()


@walking
@given(st.lists(plans, min_size=1, max_size=2), st.data())
def test_the_weight_goes_up_only_while_progressing_and_one_step_at_a_time(
    some_plans: list[RolloutPlan], data: st.DataObject
) -> None:
    for _, plan, _, after, events in looks(data, some_plans):
        raised = [event for event in events if event.after_per_10k > event.before_per_10k]
        assert sum(event.cause is not Cause.COMMAND for event in raised) <= 1
        for event in raised:
            at = plan.weights.index(event.before_per_10k) if event.before_per_10k in plan.weights else None
            promoted = event.to_phase is Phase.PROMOTED
            assert promoted or (at is not None and plan.weights[at + 1] == event.after_per_10k)
        if any(event.after_per_10k == 10_000 for event in raised) and after.phase is Phase.PROMOTED:
            assert after.step == len(plan.steps)


@walking
@given(st.lists(plans, min_size=1, max_size=2), st.data())
def test_states_and_events_come_back_from_json_as_they_were(
    some_plans: list[RolloutPlan], data: st.DataObject
) -> None:
    for _, plan, _, after, events in looks(data, some_plans, length=5):
        assert load_state(dump_state(after)) == after
        for event in events:
            plain = json.loads(dump_event(event))
            del plain["schema"]
            assert from_plain(Event, plain, "event") == event
        assert len(findings(after, plan)) in (0, len(plan.metrics))
        open_questions(after, plan)


@walking
@given(plans, st.data())
def test_a_refused_command_changes_nothing(plan: RolloutPlan, data: st.DataObject) -> None:
    for before, _, _, after, _ in looks(data, [plan], length=4):
        for verb in Verb:
            command = Command(verb)
            if refusal(after, command) is not None:
                alone, _ = step(after, plan, Inputs(), after.clock)
                told, _ = step(after, plan, Inputs(commands=(command,)), after.clock)
                assert told == alone
        assert after.revision in (before.revision, before.revision + 1)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists), st.data())
def test_a_state_with_anything_in_it_is_read_or_named(junk: Any, data: st.DataObject) -> None:
    plain = json.loads(dump_state(declared(a_plan(), 0.0)))
    plain[data.draw(st.sampled_from(sorted(plain)))] = junk
    try:
        state = load_state(json.dumps(plain))
    except StateError as error:
        named = str(error)
    else:
        step(state, a_plan(), Inputs(), 0.0)
        named = "state"
    assert named.startswith("state")
