"""Where the answers to one request meet."""

from __future__ import annotations

from ext_proc.core.observation import Role
from ext_proc.core.pairs import Missed, PairTable
from tests.support.pairs import an_answer

PRIMARY, SHADOW, NOISE = an_answer(), an_answer(Role.SHADOW), an_answer(Role.NOISE)


def table(max_pairs: int = 10, timeout_s: float = 60.0) -> PairTable:
    return PairTable(max_pairs, timeout_s)


def test_two_answers_meet_whoever_comes_first() -> None:
    for first, second in [(PRIMARY, SHADOW), (SHADOW, PRIMARY)]:
        subject = table()
        assert subject.add(first, 0.0) == []
        (pair,) = subject.add(second, 59.0)
        assert (pair.primary, pair.copy) == (PRIMARY, SHADOW)
        assert len(subject) == 0


def test_a_primary_meets_all_its_copies() -> None:
    primary = an_answer(copies=2)
    for order in [(primary, SHADOW, NOISE), (SHADOW, primary, NOISE), (NOISE, SHADOW, primary)]:
        subject = table()
        pairs = [pair for answer in order for pair in subject.add(answer, 0.0)]
        assert {pair.copy.subject.role for pair in pairs} == {Role.SHADOW, Role.NOISE}
        assert len(subject) == 0


def test_a_primary_that_was_not_copied_waits_for_nobody() -> None:
    subject = table()
    assert subject.add(an_answer(copies=0), 0.0) == []
    assert len(subject) == 0


def test_answers_to_different_requests_do_not_meet() -> None:
    subject = table()
    assert subject.add(an_answer(pair="x"), 0.0) == []
    assert subject.add(an_answer(Role.SHADOW, pair="y"), 0.0) == []
    assert len(subject) == 2


def test_an_answer_waits_only_so_long() -> None:
    subject = table(timeout_s=60.0)
    subject.add(PRIMARY, 0.0)
    assert subject.add(SHADOW, 60.0) == []
    assert subject.take_missed() == {Missed.EXPIRED: 1, Missed.FULL: 0}
    assert len(subject) == 1
    subject.expire(120.0)
    assert len(subject) == 0
    assert subject.take_missed() == {Missed.EXPIRED: 1, Missed.FULL: 0}
    assert subject.take_missed() == {Missed.EXPIRED: 0, Missed.FULL: 0}


def test_no_more_answers_wait_than_the_bound() -> None:
    subject = table(max_pairs=2)
    for pair in "abc":
        subject.add(an_answer(pair=pair), 0.0)
    assert len(subject) == 2
    assert subject.take_missed()[Missed.FULL] == 1
    assert len(subject.add(an_answer(Role.SHADOW, pair="b"), 1.0)) == 1
    assert subject.add(an_answer(Role.SHADOW, pair="c"), 1.0) == []


def test_a_second_primary_under_one_name_is_not_believed() -> None:
    subject = table()
    subject.add(PRIMARY, 0.0)
    assert subject.add(an_answer(text="other"), 0.0) == []
    (pair,) = subject.add(SHADOW, 0.0)
    assert pair.primary is PRIMARY


def test_contents_do_not_show_themselves() -> None:
    subject = table()
    subject.add(PRIMARY, 0.0)
    (pair,) = subject.add(an_answer(Role.SHADOW, question="Does it rain?"), 0.0)
    assert "rain" not in repr(pair)
    assert "rain" not in repr(pair.copy)
