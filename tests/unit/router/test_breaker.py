"""Failures in a row stop the questions; one probe after the pause says whether to go on."""

from __future__ import annotations

from ext_proc.router.breaker import Breaker


def a_broken_one() -> Breaker:
    breaker = Breaker(limit=2, pause_s=5.0)
    for now in (0.0, 1.0):
        assert breaker.allows(now)
        breaker.failed(now)
    return breaker


def test_failures_in_a_row_open_it_for_the_pause() -> None:
    breaker = a_broken_one()
    assert not breaker.allows(1.0)
    assert not breaker.allows(5.9)
    assert breaker.allows(6.0)


def test_a_success_between_failures_keeps_it_closed() -> None:
    breaker = Breaker(limit=2, pause_s=5.0)
    for now in range(10):
        assert breaker.allows(now)
        breaker.failed(now)
        breaker.succeeded()
    assert breaker.allows(10)


def test_only_one_probe_goes_through_and_its_success_closes_it() -> None:
    breaker = a_broken_one()
    assert breaker.allows(6.0)
    assert not breaker.allows(6.0)
    breaker.succeeded()
    assert breaker.allows(6.1)
    breaker.failed(6.1)
    assert breaker.allows(6.2)


def test_a_failed_probe_opens_it_again_at_once() -> None:
    breaker = a_broken_one()
    assert breaker.allows(6.0)
    breaker.failed(6.5)
    assert not breaker.allows(11.4)
    assert breaker.allows(11.5)


def test_an_abandoned_probe_leaves_its_place_to_another() -> None:
    breaker = a_broken_one()
    assert breaker.allows(6.0)
    breaker.abandoned()
    assert breaker.allows(6.0)
