"""Hard limits: what crosses them, at which answer."""

from __future__ import annotations

import pytest

from ext_proc.core.hard_limits import Watch
from ext_proc.core.observation import Role
from ext_proc.core.rollout_plan import HardLimit, LimitKind
from tests.support.rollouts import a_plan, an_answer

FAILED, FINE = an_answer(status=503), an_answer()
CUT, BROKEN_OFF, SAVED = an_answer(cut=True), an_answer(cut=True, broken=True), an_answer(fallback=True)
SAVED_AND_CUT = an_answer(cut=True, fallback=True)
THEN_BROKEN = an_answer(cut=True, fallback=True, broken=True)
SLOW, DEAR = an_answer(latency_s=9.0, first_byte_s=6.0), an_answer(cost=2.0)


def a_watch(*limits: HardLimit) -> Watch:
    return Watch(a_plan(hard_limits=limits))


@pytest.mark.parametrize(
    ("limit", "answers", "at"),
    [
        (HardLimit(LimitKind.ERROR_RATE, 4, 0.5), [FAILED] * 9, 4),
        (HardLimit(LimitKind.ERROR_RATE, 4, 0.5), [FAILED, FAILED, FINE, FINE, FAILED, FAILED, FAILED], 7),
        (HardLimit(LimitKind.ERROR_RATE, 4, 0.5), [FAILED, FINE] * 20, None),
        (HardLimit(LimitKind.CONSECUTIVE_ERRORS, 3), [FAILED, FAILED, FINE, FAILED, FAILED, FAILED], 6),
        (HardLimit(LimitKind.CONSECUTIVE_ERRORS, 1), [FINE, FAILED], 2),
        (HardLimit(LimitKind.CONSECUTIVE_ERRORS, 2), [CUT, CUT, BROKEN_OFF, CUT, SAVED], 5),
        (HardLimit(LimitKind.ERROR_RATE, 2, 0.5), [CUT, FINE, CUT, FAILED, CUT, BROKEN_OFF], 6),
        (HardLimit(LimitKind.LATENCY_P95, 1, 5.0), [an_answer(cut=True, broken=True, latency_s=9.0)], None),
        (
            HardLimit(LimitKind.LATENCY_P95, 2, 5.0),
            [CUT, SLOW, CUT, CUT, an_answer(cut=True, latency_s=6.0)],
            5,
        ),
        (HardLimit(LimitKind.CONSECUTIVE_ERRORS, 2), [SAVED_AND_CUT, THEN_BROKEN, BROKEN_OFF], 3),
        (HardLimit(LimitKind.COST, 1, 1.5), [an_answer(cost=2.0, cut=True), DEAR], 2),
        (HardLimit(LimitKind.COST, 1, 1.5), [an_answer(cost=2.0, fallback=True), DEAR], 2),
        (HardLimit(LimitKind.LATENCY_P95, 20, 5.0), [FINE] * 19 + [SLOW] + [FINE] * 9 + [SLOW], 30),
        (HardLimit(LimitKind.FIRST_BYTE_P95, 2, 5.0), [FINE, SLOW, FINE, SLOW], 4),
        (HardLimit(LimitKind.COST, 2, 1.5), [DEAR, FINE, an_answer(cost=0.5), DEAR, DEAR], 5),
    ],
)
def test_a_limit_is_crossed_at_the_answer_that_crosses_it(
    limit: HardLimit, answers: list[object], at: int | None
) -> None:
    watch = a_watch(limit)
    seen = [watch.seen(answer) is not None for answer in answers]  # type: ignore[arg-type]
    assert (seen.index(True) + 1 if True in seen else None) == at


def test_a_breach_says_by_how_much() -> None:
    watch = a_watch(HardLimit(LimitKind.ERROR_RATE, 4, 0.5))
    for _ in range(3):
        watch.seen(FAILED)
    breach = watch.seen(FINE)
    assert breach is not None
    assert (breach.value, breach.requests) == (0.75, 4)


@pytest.mark.parametrize(
    "other",
    [
        an_answer("baseline", status=503),
        an_answer("canary-2", status=503),
        an_answer(role=Role.SHADOW, status=503),
    ],
)
def test_only_the_canarys_own_answers_count(other: object) -> None:
    watch = a_watch(HardLimit(LimitKind.CONSECUTIVE_ERRORS, 1))
    assert watch.seen(other) is None  # type: ignore[arg-type]
