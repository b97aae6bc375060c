"""What one rollout counts in this process."""

from __future__ import annotations

import pytest

from ext_proc.core.observation import Observation
from ext_proc.core.rollout import step
from ext_proc.core.rollout_plan import HardLimit, LimitKind
from ext_proc.core.rollout_settings import PolicyRollout
from ext_proc.core.rollout_types import Inputs
from ext_proc.rollouts.tracked import Tracked
from tests.support.rollouts import a_plan, an_answer


@pytest.mark.parametrize(
    ("late", "counts"),
    [
        (an_answer(target="vllm/before", decided="vllm/before", status=504), False),
        (an_answer(target="vllm/other", decided="vllm/before", fallback=True), False),
        (an_answer(target="vllm/before", cut=True, broken=True), False),
        (an_answer(decided="vllm/next", status=504), True),
        (an_answer(target="vllm/other", decided="vllm/next", fallback=True), True),
    ],
)
def test_what_was_decided_for_the_canary_before_says_nothing_of_this_one(
    late: Observation, counts: bool
) -> None:
    plan = a_plan(hard_limits=(HardLimit(LimitKind.CONSECUTIVE_ERRORS, 1),))
    one = Tracked(PolicyRollout(plan), 0.0)
    taken = one.gather()
    after, _ = step(one.state, plan, Inputs(), 1.0)
    one.became(after, 1, taken)
    assert (one.observed(late) is not None) == counts
    assert one.pending.exposed == counts
