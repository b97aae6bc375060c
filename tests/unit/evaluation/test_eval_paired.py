"""Whether two deciders differ: published and hand-computed values."""

from __future__ import annotations

import pytest

from ext_proc.evaluation.paired import bootstrap, difference, mcnemar, newcombe


def series(both: int, only_second: int, only_first: int, neither: int) -> tuple[list[bool], list[bool]]:
    pairs = [(True, True)] * both + [(False, True)] * only_second
    pairs += [(True, False)] * only_first + [(False, False)] * neither
    return [first for first, _ in pairs], [second for _, second in pairs]


@pytest.mark.parametrize(
    ("table", "interval"),
    [
        # Newcombe 1998, table II, method 10.
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((54, 0, 0, 0), (-0.0664, 0.0664)),
        ((0, 54, 0, 0), (0.9061, 1.0)),
    ],
)
def test_newcombes_interval(table: tuple[int, int, int, int], interval: tuple[float, float]) -> None:
    assert newcombe(*series(*table)) == pytest.approx(interval, abs=5e-5)


def test_newcombes_interval_turns_with_the_sides() -> None:
    first, second = series(20, 12, 2, 16)
    low, high = newcombe(first, second)
    assert newcombe(second, first) == pytest.approx((-high, -low))


@pytest.mark.parametrize(
    ("table", "p"),
    [
        ((5, 0, 0, 5), 1.0),
        ((5, 1, 0, 5), 1.0),
        ((0, 8, 2, 0), 2 * (1 + 10 + 45) / 2**10),
        ((9, 0, 6, 9), 2 / 2**6),
        ((0, 5, 5, 0), 1.0),
    ],
)
def test_mcnemars_exact_p_value(table: tuple[int, int, int, int], p: float) -> None:
    assert mcnemar(*series(*table)) == pytest.approx(p)


def test_a_bootstrap_of_conversations_is_wider_than_one_of_their_turns() -> None:
    gains = [1] * 10 + [0] * 30
    alone = bootstrap(gains, list(range(40)))
    together = bootstrap(gains, [index // 10 for index in range(40)])
    assert alone == pytest.approx((0.125, 0.4), abs=0.03)
    # One of four conversations: drawn four times, it is there 0 to 3 times in 95 of 100 drawings.
    assert together == (0.0, 0.75)
    assert bootstrap(gains, list(range(40))) == alone


def test_a_difference_is_shown_when_its_interval_leaves_out_zero() -> None:
    first, second = series(40, 12, 1, 20)
    found = difference(first, second, [None] * 73)
    assert found is not None
    assert found.value == pytest.approx(11 / 73)
    assert found.low < found.value < found.high
    assert found.is_shown
    assert found.p_value == pytest.approx(mcnemar(first, second))
    small = difference(*series(4, 1, 0, 2), list("abcdefg"))
    assert small is not None
    assert not small.is_shown


def test_turns_of_one_conversation_are_drawn_together_and_have_no_p_value() -> None:
    first, second = [False] * 6, [True] * 6
    found = difference(first, second, ["a", "a", "b", "b", "c", None])
    assert found is not None
    assert (found.p_value, found.value) == (None, 1.0)
    assert "4 conversations" in found.method
    assert difference([], [], []) is None
