"""Failures in a row stop the questions; one probe after the pause says whether to go on."""

from __future__ import annotations

from ext_proc.router.breaker import Breaker, Pass


def failed(breaker: Breaker, now: float) -> bool:
    admitted = breaker.admit(now)
    assert admitted is not None
    return breaker.failed(admitted, now)


def a_broken_one() -> Breaker:
    breaker = Breaker(limit=2, pause_s=5.0)
    assert [failed(breaker, now) for now in (0.0, 1.0)] == [False, True]
    return breaker


def test_failures_in_a_row_open_it_for_the_pause() -> None:
    breaker = a_broken_one()
    assert breaker.admit(1.0) is None
    assert breaker.admit(5.9) is None
    assert breaker.admit(6.0) is Pass.PROBE


def test_a_success_between_failures_keeps_it_closed() -> None:
    breaker = Breaker(limit=2, pause_s=5.0)
    for now in range(10):
        failed(breaker, now)
        breaker.succeeded()
    assert breaker.admit(10) is Pass.ORDINARY


def test_only_one_probe_goes_through_and_its_success_closes_it() -> None:
    breaker = a_broken_one()
    assert breaker.admit(6.0) is Pass.PROBE
    assert breaker.admit(6.0) is None
    breaker.succeeded()
    assert not failed(breaker, 6.1)
    assert breaker.admit(6.2) is Pass.ORDINARY


def test_a_failed_probe_opens_it_again_at_once() -> None:
    breaker = a_broken_one()
    assert breaker.admit(6.0) is Pass.PROBE
    assert breaker.failed(Pass.PROBE, 6.5)
    assert breaker.admit(11.4) is None
    assert breaker.admit(11.5) is Pass.PROBE


def test_an_abandoned_probe_leaves_its_place_to_another() -> None:
    breaker = a_broken_one()
    assert breaker.admit(6.0) is Pass.PROBE
    breaker.abandoned(Pass.PROBE)
    assert breaker.admit(6.0) is Pass.PROBE


def test_what_went_through_before_it_opened_neither_prolongs_the_pause_nor_ends_the_probe() -> None:
    breaker = Breaker(limit=2, pause_s=5.0)
    early = [breaker.admit(0.0) for _ in range(8)]
    assert early == [Pass.ORDINARY] * 8
    assert [breaker.failed(Pass.ORDINARY, now) for now in (1.0, 1.0, 4.0)] == [False, True, False]
    assert breaker.admit(6.0) is Pass.PROBE
    breaker.abandoned(Pass.ORDINARY)
    assert not breaker.failed(Pass.ORDINARY, 6.0)
    assert breaker.admit(6.0) is None
    breaker.succeeded()
    assert breaker.admit(6.0) is Pass.ORDINARY
