"""Arms, their intervals, and weights that change under them."""

from __future__ import annotations

import pytest

from ext_proc.core.split import apply_weights, choose_arm, choose_shadow, laid_out
from ext_proc.core.types import Arm, Shadow, Snapshot
from tests.support.builders import a_route, a_snapshot, a_target

FIRST, SECOND = Shadow(a_target("a/a"), 1_000), Shadow(a_target("b/b"), 500)


def a_split(arms: int = 3) -> Snapshot:
    return a_snapshot(routes=(a_route(*(a_target(f"vllm/{number}") for number in range(arms))),))


def weights(snapshot: Snapshot) -> dict[str, int]:
    return {arm.name: arm.weight_per_10k for arm in snapshot.routes["coding"].arms}


def test_the_baseline_takes_what_the_canaries_leave() -> None:
    changed = apply_weights(a_split(), {"coding": {"canary": 500, "canary-2": 100}})
    assert weights(changed) == {"baseline": 9400, "canary": 500, "canary-2": 100}


def test_an_arm_that_is_not_named_keeps_its_weight() -> None:
    before = a_split()
    changed = apply_weights(before, {"coding": {"canary": 500}})
    assert weights(changed)["canary-2"] == weights(before)["canary-2"]


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ({"canary": 20_000}, {"baseline": 0, "canary": 10_000, "canary-2": 0}),
        ({"canary": -5}, {"baseline": 6667, "canary": 0, "canary-2": 3333}),
        ({"canary": 9000, "canary-2": 9000}, {"baseline": 0, "canary": 9000, "canary-2": 1000}),
        ({"baseline": 1, "nobody": 7}, {"baseline": 3334, "canary": 3333, "canary-2": 3333}),
    ],
)
def test_weights_that_do_not_fit_still_sum_to_the_whole(wanted: dict[str, int], got: dict[str, int]) -> None:
    assert weights(apply_weights(a_split(), {"coding": wanted, "gone": {"canary": 1}})) == got


def test_raising_a_canary_moves_sessions_to_it_and_nowhere_else() -> None:
    for arm in ("canary", "canary-2"):
        low = apply_weights(a_split(), {"coding": {"canary": 1000, "canary-2": 1000}})
        high = apply_weights(low, {"coding": {arm: 4000}})
        before, after = low.routes["coding"].arms, high.routes["coding"].arms
        moved = {
            (choose_arm(before, bucket).name, choose_arm(after, bucket).name)
            for bucket in range(10_000)
            if choose_arm(before, bucket).name != choose_arm(after, bucket).name
        }
        assert moved == {("baseline", arm)}


def arms(**weights: int) -> tuple[Arm, ...]:
    return tuple(Arm(name, a_target(), weight) for name, weight in weights.items())


def test_canaries_grow_into_the_baseline_from_both_ends() -> None:
    layout = laid_out(arms(baseline=7_000, one=1_000, two=1_000, three=1_000))
    assert [arm.name for arm in layout] == ["one", "three", "baseline", "two"]


@pytest.mark.parametrize(
    ("bucket", "name"), [(0, "one"), (999, "one"), (1_000, "baseline"), (8_999, "baseline"), (9_000, "two")]
)
def test_an_arm_owns_its_interval(bucket: int, name: str) -> None:
    assert choose_arm(arms(baseline=8_000, one=1_000, two=1_000), bucket).name == name


def test_an_arm_without_weight_is_never_chosen() -> None:
    names = {choose_arm(arms(baseline=10_000, one=0), bucket).name for bucket in (0, 5_000, 9_999)}
    assert names == {"baseline"}


def test_weights_that_do_not_fill_the_whole_are_a_bug_of_ours() -> None:
    with pytest.raises(ValueError, match="outside of weights that sum to 2"):
        choose_arm(arms(baseline=1, one=1), 2)


@pytest.mark.parametrize(
    ("bucket", "shadow"), [(0, FIRST), (999, FIRST), (1_000, SECOND), (1_499, SECOND), (1_500, None)]
)
def test_at_most_one_shadow_copies_a_session(bucket: int, shadow: Shadow | None) -> None:
    assert choose_shadow((FIRST, SECOND), bucket) is shadow
