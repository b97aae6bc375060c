"""The state machine of a rollout, transition by transition."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
    SetWeight,
)
from ext_proc.core.rollout_types import Cause, Command, HookAnswer, Outcome, Phase, Verb
from ext_proc.core.rollout_words import open_questions, refusal
from tests.support.rollouts import STEPS, Rollout, a_plan, a_window

BREACH = Breach(HardLimit(LimitKind.ERROR_RATE, 20, 0.3), 0.5, 20)
START, PAUSE, RESUME, PROMOTE, ABORT = (Command(verb, by="ann") for verb in Verb)
FAILED = {"evals": CheckResult(CheckVerdict.FAIL)}
PASSED = {"evals": CheckResult(CheckVerdict.PASS)}


def test_a_healthy_canary_walks_its_steps_and_is_promoted() -> None:
    rollout = Rollout()
    weights = []
    for _ in range(6):
        weights.append(rollout.where)
        rollout.look_good()
    assert weights == [
        ("waiting", 0),
        ("progressing", 500),
        ("progressing", 2500),
        ("promoted", 10_000),
        ("promoted", 10_000),
        ("promoted", 10_000),
    ]
    assert rollout.causes() == ["started", "step", "analysis_passed", "step", "analysis_passed", "completed"]


def test_an_event_has_the_evidence_that_it_was_decided_by() -> None:
    rollout = Rollout()
    rollout.look()
    (event,) = rollout.look_bad()
    assert (event.from_phase, event.to_phase) == (Phase.PROGRESSING, Phase.ABORTED)
    assert (event.before_per_10k, event.after_per_10k) == (500, 0)
    (found,) = event.findings
    assert found.outcome is Outcome.WORSE
    assert (found.canary, found.baseline, found.n_canary) == (0.5, 0.0, 1000)
    assert event.text == "rolled back: error_rate is worse: 0.5 against 0"


def test_a_metric_that_was_counted_but_never_measured_is_told_without_a_value() -> None:
    rollout = Rollout(a_plan(metrics=(DEFAULT_RULES[MetricKind.COST],)))
    rollout.look()
    counted = a_window(rollout.state, canary=(500, 1000), baseline=(10, 9000), kind=MetricKind.COST)
    (event,) = rollout.look(window=counted)
    assert event.text == "rolled back: cost is worse: ? against ?"


def test_wrong_answers_are_told_as_a_distance() -> None:
    rollout = Rollout(a_plan(metrics=(DEFAULT_RULES[MetricKind.SIMILARITY],)))
    rollout.look()
    wrong = a_window(rollout.state, canary=(60, 100), baseline=(0, 0), kind=MetricKind.SIMILARITY)
    (event,) = rollout.look(window=wrong)
    assert event.text == "rolled back: similarity is worse: 0.6 away on average over 100 comparisons"


def test_it_waits_to_be_started_when_the_file_says_so() -> None:
    rollout = Rollout(a_plan(auto_start=False))
    assert rollout.look() == ()
    (started, _) = rollout.look(commands=(START,))
    assert (started.cause, started.by) == (Cause.STARTED, "ann")
    assert rollout.where == ("progressing", 500)


def test_a_step_lasts_an_interval_however_good_the_canary_is() -> None:
    rollout = Rollout()
    rollout.look()
    rollout.look(after_s=59, window=a_window(rollout.state, canary=(0, 9000), baseline=(0, 9000)))
    assert rollout.where == ("progressing", 500)
    rollout.look(after_s=1)
    assert rollout.where == ("progressing", 2500)


def test_a_step_waits_for_min_requests() -> None:
    rollout = Rollout(a_plan(min_requests=1001))
    rollout.look()
    rollout.look_good()
    assert rollout.where == ("progressing", 500)
    assert open_questions(rollout.state, rollout.plan) == ("the canary has had 1000 of 1001 requests",)


def test_too_little_evidence_means_wait_and_past_the_deadline_pause_and_say_so() -> None:
    rollout = Rollout(a_plan(deadline_s=600, min_requests=0))
    rollout.look()
    for _ in range(9):
        assert rollout.look(window=a_window(rollout.state, canary=(0.1, 4), baseline=(2, 80))) == ()
    (event,) = rollout.look()
    assert (event.cause, rollout.where) == (Cause.INCONCLUSIVE, ("paused", 500))
    assert event.text == "inconclusive after 600 s: error_rate is undecided"
    rollout.look(commands=(RESUME,))
    assert rollout.look(after_s=500) == ()
    assert rollout.look(after_s=100)[0].cause is Cause.INCONCLUSIVE


def test_evidence_of_another_weight_does_not_count() -> None:
    rollout = Rollout()
    rollout.look()
    before = a_window(rollout.state, canary=(500, 1000), baseline=(0, 1000))
    rollout.look_good()
    assert rollout.where == ("progressing", 2500)
    rollout.look(window=before)
    assert rollout.where == ("progressing", 2500)


def test_only_one_weight_is_set_in_a_look() -> None:
    rollout = Rollout(a_plan(steps=(SetWeight(100), SetWeight(200), SetWeight(300))))
    weights = []
    for _ in range(4):
        rollout.look()
        weights.append(rollout.where)
    assert weights == [
        ("progressing", 100),
        ("progressing", 200),
        ("progressing", 300),
        ("promoted", 10_000),
    ]


def test_a_timed_pause_waits_and_still_watches() -> None:
    plan = a_plan(steps=(SetWeight(500), Pause(300), SetWeight(1000)))
    rollout = Rollout(plan)
    rollout.look()
    assert rollout.look(after_s=299) == ()
    rollout.look(after_s=1)
    assert rollout.where == ("progressing", 1000)
    watched = Rollout(plan)
    watched.look()
    watched.look_bad()
    assert watched.where == ("aborted", 0)


def test_a_pause_without_end_waits_for_resume_and_still_watches() -> None:
    plan = a_plan(steps=(SetWeight(500), Pause(), SetWeight(1000), Analysis()))
    rollout = Rollout(plan)
    rollout.look()
    assert (rollout.where, rollout.state.cause) == (("paused", 500), Cause.PAUSE_STEP)
    assert rollout.look(after_s=1e6) == ()
    watched = Rollout(plan)
    watched.look()
    watched.look_bad()
    assert watched.where == ("aborted", 0)
    rollout.look(commands=(RESUME,))
    assert rollout.where == ("progressing", 1000)


def test_pause_and_resume_by_hand() -> None:
    rollout = Rollout()
    rollout.look()
    rollout.look(commands=(PAUSE,))
    rollout.look_good()
    assert rollout.where == ("paused", 500)
    rollout.look(commands=(RESUME,))
    assert rollout.where == ("progressing", 2500)


def test_paused_before_it_started_it_stays_so() -> None:
    rollout = Rollout()
    rollout.look(commands=(PAUSE,))
    rollout.look()
    assert rollout.where == ("paused", 0)
    rollout.look(commands=(RESUME,))
    assert (rollout.where, rollout.state.run) == (("progressing", 500), 1)


def test_promote_leaves_the_step_that_is_waited_in() -> None:
    rollout = Rollout()
    rollout.look()
    rollout.look(commands=(PROMOTE,))
    assert rollout.where == ("progressing", 2500)
    rollout.look(commands=(PROMOTE,))
    assert rollout.where == ("promoted", 10_000)


def test_promote_in_full_goes_to_the_end_at_once() -> None:
    rollout = Rollout(a_plan(auto_start=False))
    assert refusal(rollout.state, PROMOTE) == "it is waiting: start it, or promote it in full"
    rollout.look(commands=(replace(PROMOTE, full=True),))
    assert rollout.where == ("promoted", 10_000)


def test_abort_takes_everything_from_the_canary() -> None:
    rollout = Rollout()
    rollout.look()
    rollout.look(commands=(ABORT,))
    assert rollout.where == ("aborted", 0)
    assert rollout.events[-1].by == "ann"
    assert rollout.look_good() == ()
    rollout.look(commands=(START,))
    assert (rollout.where, rollout.state.run) == (("progressing", 500), 2)


def test_manual_promotion_waits_for_a_person() -> None:
    rollout = Rollout(a_plan(promotion=Promotion.MANUAL))
    for _ in range(4):
        rollout.look_good()
    assert (rollout.where, rollout.state.cause) == (("paused", 2500), Cause.AWAITING_PROMOTION)
    rollout.look(commands=(PROMOTE,))
    assert (rollout.where, rollout.events[-1].by) == (("promoted", 10_000), "ann")


def test_a_hard_limit_rolls_back_even_where_a_failure_only_pauses() -> None:
    rollout = Rollout(a_plan(on_failure=OnFailure.PAUSE))
    rollout.look()
    rollout.look(commands=(PAUSE,))
    (event,) = rollout.look(after_s=0, breach=BREACH)
    assert (rollout.where, event.cause, event.breach) == (("aborted", 0), Cause.HARD_LIMIT, BREACH)
    assert event.text == "rolled back: 50.0% of the last 20 requests failed; the hard limit is 30.0%"


def test_a_limit_that_comes_late_changes_nothing() -> None:
    rollout = Rollout()
    rollout.look()
    rollout.look(commands=(ABORT,))
    assert rollout.look(breach=BREACH) == ()


def test_on_failure_pause_keeps_the_weight_and_resume_begins_the_evidence_again() -> None:
    rollout = Rollout(a_plan(on_failure=OnFailure.PAUSE))
    rollout.look()
    rollout.look_bad()
    assert (rollout.where, rollout.state.cause) == (("paused", 500), Cause.ANALYSIS_FAILED)
    assert rollout.look_bad() == ()
    rollout.look(commands=(RESUME,))
    assert rollout.where == ("progressing", 500)
    rollout.look_good()
    assert rollout.where == ("progressing", 2500)


def test_an_external_check_has_to_pass() -> None:
    rollout = Rollout(a_plan(checks=("evals",)))
    rollout.look()
    rollout.look_good()
    assert rollout.where == ("progressing", 500)
    assert open_questions(rollout.state, rollout.plan) == ("evals has not passed",)
    rollout.look(checks={"evals": CheckResult(CheckVerdict.INCONCLUSIVE)})
    assert rollout.where == ("progressing", 500)
    rollout.look(checks=PASSED)
    assert rollout.where == ("progressing", 2500)
    assert rollout.state.passed == frozenset()


def test_more_than_max_failures_of_a_check_fail_the_analysis() -> None:
    rollout = Rollout(a_plan(checks=("evals",), max_failures=2))
    rollout.look()
    for checks in (FAILED, PASSED, FAILED):
        rollout.look(checks=checks, window=None)
    assert rollout.where == ("progressing", 500)
    (event,) = rollout.look(checks=FAILED)
    assert (event.cause, event.text) == (Cause.CHECK_FAILED, "rolled back: evals failed 3 times")


def test_a_check_that_the_plan_does_not_name_is_ignored() -> None:
    rollout = Rollout()
    rollout.look()
    rollout.look(checks=FAILED)
    assert rollout.where == ("progressing", 500)


def answer(rollout: Rollout, hook: Hook, said: Answer) -> tuple[HookAnswer, ...]:
    return (HookAnswer(hook, rollout.state.run, rollout.state.step, said),)


def test_a_weight_waits_for_its_confirmation() -> None:
    rollout = Rollout(a_plan(hooks=frozenset({Hook.CONFIRM_ROLLOUT})))
    rollout.look()
    assert (rollout.where, rollout.state.hook) == (("progressing", 0), Hook.CONFIRM_ROLLOUT)
    rollout.look(answers=answer(rollout, Hook.CONFIRM_ROLLOUT, Answer.PENDING))
    assert rollout.where == ("progressing", 0)
    stale = answer(rollout, Hook.CONFIRM_ROLLOUT, Answer.APPROVED)
    rollout.look(answers=stale)
    assert (rollout.where, rollout.state.hook) == (("progressing", 500), None)
    rollout.look_good()
    assert (rollout.where, rollout.state.hook) == (("progressing", 500), Hook.CONFIRM_ROLLOUT)
    rollout.look(answers=stale)
    assert rollout.where == ("progressing", 500)


def test_a_denied_weight_pauses_and_resume_asks_again() -> None:
    rollout = Rollout(a_plan(hooks=frozenset({Hook.CONFIRM_ROLLOUT})))
    rollout.look()
    rollout.look(answers=answer(rollout, Hook.CONFIRM_ROLLOUT, Answer.DENIED))
    assert (rollout.where, rollout.state.cause) == (("paused", 0), Cause.HOOK_DENIED)
    rollout.look(commands=(RESUME,))
    assert rollout.state.hook is Hook.CONFIRM_ROLLOUT


def test_a_person_may_overrule_a_hook() -> None:
    rollout = Rollout(a_plan(hooks=frozenset({Hook.CONFIRM_ROLLOUT})))
    rollout.look()
    rollout.look(commands=(PROMOTE,))
    assert rollout.where == ("progressing", 500)


def test_promotion_waits_for_its_confirmation() -> None:
    rollout = Rollout(a_plan(hooks=frozenset({Hook.CONFIRM_PROMOTION})))
    for _ in range(4):
        rollout.look_good()
    assert (rollout.where, rollout.state.hook) == (("progressing", 2500), Hook.CONFIRM_PROMOTION)
    rollout.look(answers=answer(rollout, Hook.CONFIRM_PROMOTION, Answer.APPROVED))
    assert rollout.where == ("promoted", 10_000)


def test_the_rollback_hook_rolls_back_while_paused_too() -> None:
    rollout = Rollout(a_plan(hooks=frozenset({Hook.ROLLBACK})))
    rollout.look()
    rollout.look(commands=(PAUSE,), answers=answer(rollout, Hook.ROLLBACK, Answer.DENIED))
    assert rollout.where == ("paused", 500)
    rollout.look(answers=answer(rollout, Hook.ROLLBACK, Answer.APPROVED))
    assert (rollout.where, rollout.state.cause) == (("aborted", 0), Cause.ROLLBACK_HOOK)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((500, 3000), 500), ((100, 200, 3000), 200), ((1000, 3000), 0)],
)
def test_other_steps_in_the_file_pause_at_the_highest_weight_not_above(
    weights: tuple[int, ...], expected: int
) -> None:
    rollout = Rollout()
    rollout.look()
    rollout.plan = a_plan(steps=tuple(SetWeight(weight) for weight in weights))
    rollout.look_bad()
    assert (rollout.where, rollout.state.cause) == (("paused", expected), Cause.PLAN_CHANGED)
    rollout.look(commands=(RESUME,))
    following = next(weight for weight in weights if weight > expected)
    assert rollout.where == ("progressing", following)


def test_other_steps_do_not_disturb_what_is_over() -> None:
    rollout = Rollout()
    rollout.look(commands=(replace(PROMOTE, full=True),))
    rollout.plan = a_plan(steps=(SetWeight(100),))
    assert rollout.look() == ()
    assert rollout.where == ("promoted", 10_000)


def test_another_target_in_the_file_is_a_new_rollout() -> None:
    rollout = Rollout()
    rollout.look(commands=(replace(PROMOTE, full=True),))
    rollout.plan = a_plan(target="vllm/next-next", auto_start=False)
    (event,) = rollout.look()
    assert (event.cause, event.before_per_10k, event.after_per_10k) == (Cause.TARGET_CHANGED, 10_000, 0)
    assert rollout.where == ("waiting", 0)


def test_other_metrics_in_the_file_begin_the_evidence_again() -> None:
    rollout = Rollout(a_plan(min_requests=5000))
    rollout.look()
    rollout.look_good()
    epoch = rollout.state.evidence.epoch
    rollout.plan = a_plan(metrics=(DEFAULT_RULES[MetricKind.COST],))
    rollout.look(after_s=0)
    assert (rollout.where, rollout.state.evidence.requests) == (("progressing", 500), 0)
    assert rollout.state.evidence.epoch == epoch + 1


def test_a_clock_set_back_loses_no_time_that_was_waited() -> None:
    rollout = Rollout(a_plan(steps=(SetWeight(500), Pause(300), SetWeight(1000))))
    rollout.look()
    rollout.look(after_s=200)
    rollout.look(after_s=-86_400)
    assert rollout.look(after_s=99) == ()
    rollout.look(after_s=1)
    assert rollout.where == ("progressing", 1000)


def test_nothing_new_changes_no_revision() -> None:
    rollout = Rollout()
    rollout.look()
    before = rollout.state
    rollout.look(after_s=10)
    assert rollout.state == replace(before, clock=rollout.now)


@pytest.mark.parametrize("changes", [{"step": 99}, {"weight_per_10k": 4321}])
def test_a_stored_state_that_no_plan_leads_to_is_paused_not_promoted(changes: dict[str, int]) -> None:
    rollout = Rollout()
    rollout.look()
    rollout.state = replace(rollout.state, **changes)
    rollout.look()
    assert rollout.state.phase is Phase.PAUSED
    assert rollout.state.weight_per_10k in rollout.plan.weights


def test_at_everything_there_is_no_baseline_and_the_metrics_are_not_asked() -> None:
    rollout = Rollout(a_plan(steps=(SetWeight(10_000), Analysis()), min_requests=0))
    rollout.look()
    assert rollout.where == ("progressing", 10_000)
    rollout.look()
    assert rollout.where == ("promoted", 10_000)


def test_a_command_that_arrives_twice_is_obeyed_once() -> None:
    rollout = Rollout(a_plan(steps=(SetWeight(500), Pause(), Pause(), SetWeight(5_000), Pause()), metrics=()))
    rollout.look()
    rollout.look()
    assert rollout.where == ("paused", 500)
    promote = replace(PROMOTE, id="a1")
    rollout.look(commands=(promote, promote))
    rollout.look(commands=(promote,))
    assert (rollout.where, rollout.state.step) == (("paused", 500), 2)
    rollout.look(commands=(replace(PROMOTE, id="a2"),))
    rollout.look()
    assert rollout.where == ("paused", 5_000)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"steps": ()}, "steps set no weight"),
        ({"steps": (SetWeight(0),)}, "a weight is above 0 and at most 100 %"),
        ({"steps": (SetWeight(500), SetWeight(500))}, "the weights of the steps go up"),
        ({"steps": (Pause(), *STEPS)}, "the first step sets a weight"),
        (
            {"steps": (SetWeight(15), Analysis())},
            "below 0.16 % a canary has too few sessions for an analysis to be decided",
        ),
        ({"metrics": (DEFAULT_RULES[MetricKind.COST],) * 2}, "a metric is listed twice"),
        (
            {"metrics": (replace(DEFAULT_RULES[MetricKind.COST], tolerance=0.9),)},
            "cost: max_degradation is above tolerance, and that is not negative",
        ),
        (
            {"metrics": (replace(DEFAULT_RULES[MetricKind.COST], relative=False),)},
            "cost: its margins are relative, not absolute",
        ),
        (
            {"metrics": (replace(DEFAULT_RULES[MetricKind.JUDGE], relative=True),)},
            "judge: its margins are points, not relative",
        ),
        ({"false_pass_rate": 1.0}, "false_rollback_rate and false_pass_rate lie between 0 and 1"),
    ],
)
def test_what_is_wrong_with_a_plan(changes: dict[str, object], problem: str) -> None:
    assert problem in a_plan(**changes).problems()
    assert a_plan().problems() == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": (SetWeight(16), Analysis())},
        {"steps": (SetWeight(1), Pause(), SetWeight(500), Analysis())},
        {"steps": (SetWeight(1), Analysis()), "metrics": (DEFAULT_RULES[MetricKind.JUDGE],)},
    ],
)
def test_what_a_small_weight_is_good_for(changes: dict[str, object]) -> None:
    assert a_plan(**changes).problems() == ()
