"""When a worker that ended is started again."""

from __future__ import annotations

from ext_proc.workers.plan import LONGEST_DELAY_S, STABLE_S, Record, after_crash


def delays(*served_s: float | None) -> list[float]:
    record, found = Record(), []
    for lived in served_s:
        record, delay_s = after_crash(record, lived)
        found.append(delay_s)
    return found


def test_one_that_lasted_is_replaced_at_once_each_time() -> None:
    assert delays(*[STABLE_S] * 5) == [0.0] * 5


def test_a_first_crash_is_replaced_at_once_and_a_loop_is_slowed_down() -> None:
    assert delays(*[1.0] * 8) == [0.0, 2.0, 4.0, 8.0, 16.0, LONGEST_DELAY_S, LONGEST_DELAY_S, LONGEST_DELAY_S]


def test_one_that_never_served_waits_from_the_first_time() -> None:
    assert delays(None, None, None) == [1.0, 2.0, 4.0]


def test_a_loop_has_an_end() -> None:
    assert delays(*[None] * 2_000)[-1] == LONGEST_DELAY_S
    assert delays(1.0, 1.0, STABLE_S, 1.0) == [0.0, 2.0, 0.0, 0.0]
