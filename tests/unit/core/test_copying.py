"""Copies within their bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ext_proc.core.copying import CLAIM_S, CopyBounds
from ext_proc.core.types import CopyRefusal, Shadow
from tests.support.builders import a_target

SHADOW = Shadow(a_target("next/model"), 10_000)


def admitted(
    bounds: CopyBounds, pair: str, now: float = 0.0, copies: int = 1, size: int = 9, **limits: Any
) -> object:
    shadow = replace(SHADOW, **limits)
    return bounds.admit("p", shadow, [(pair, f"t{number}") for number in range(copies)], size, now)


def test_a_request_larger_than_the_bound_is_not_copied() -> None:
    bounds = CopyBounds()
    assert admitted(bounds, "a", size=11, max_body_bytes=10) is CopyRefusal.BODY
    assert admitted(bounds, "b", size=10, max_body_bytes=10) is None


def test_no_more_copies_are_on_their_way_than_the_bound() -> None:
    bounds = CopyBounds()
    assert [admitted(bounds, pair, max_concurrent=2) for pair in "abc"] == [
        None,
        None,
        CopyRefusal.CONCURRENT,
    ]
    assert bounds.on_their_way(0.0) == 2
    bounds.ended(("a", "t0"))
    assert admitted(bounds, "c", max_concurrent=2) is None


def test_a_copy_that_hangs_holds_its_slot_until_envoy_has_given_it_up() -> None:
    bounds = CopyBounds(limit_s=100.0)
    assert admitted(bounds, "a", 0.0, max_concurrent=1) is None
    bounds.began(("a", "t0"), 1.0)
    assert admitted(bounds, "b", 100.9, max_concurrent=1) is CopyRefusal.CONCURRENT
    assert admitted(bounds, "b", 101.0, max_concurrent=1) is None


def test_a_copy_that_was_never_made_frees_its_slot_soon() -> None:
    bounds = CopyBounds(limit_s=100.0)
    assert admitted(bounds, "a", 0.0, max_concurrent=1) is None
    assert admitted(bounds, "b", CLAIM_S - 0.1, max_concurrent=1) is CopyRefusal.CONCURRENT
    assert admitted(bounds, "b", CLAIM_S, max_concurrent=1) is None
    assert bounds.on_their_way(0.0) == 1


def test_no_more_copies_are_made_in_any_minute_than_the_bound() -> None:
    bounds = CopyBounds()
    times = [0.0, 30.0, 59.9, 60.0, 61.0, 90.0]
    refusals = [admitted(bounds, f"{now}", now, max_per_minute=2) for now in times]
    assert refusals == [None, None, CopyRefusal.RATE, None, CopyRefusal.RATE, None]


def test_a_request_gets_all_its_copies_or_none() -> None:
    bounds = CopyBounds()
    assert admitted(bounds, "a", copies=2, max_concurrent=3) is None
    assert admitted(bounds, "b", copies=2, max_concurrent=3) is CopyRefusal.CONCURRENT
    bounds.ended(("a", "t1"))
    assert admitted(bounds, "b", copies=2, max_concurrent=3) is None
    assert admitted(CopyBounds(), "a", copies=2, max_per_minute=1) is CopyRefusal.RATE


@pytest.mark.parametrize("policy", ["p", "q"])
def test_each_policys_shadow_has_bounds_of_its_own(policy: str) -> None:
    bounds = CopyBounds()
    tight = replace(SHADOW, max_concurrent=1)
    assert bounds.admit("p", tight, [("a", "t")], 1, 0.0) is None
    refusal = bounds.admit(policy, tight, [("b", "t")], 1, 0.0)
    assert refusal is (CopyRefusal.CONCURRENT if policy == "p" else None)


def test_the_end_of_a_copy_that_nobody_knows_is_harmless() -> None:
    bounds = CopyBounds()
    bounds.ended(("a", "t"))
    bounds.began(("a", "t"), 0.0)
    assert bounds.on_their_way(0.0) == 0


@pytest.mark.parametrize("how", ["ended", "never made"])
def test_nothing_stays_of_a_shadow_that_left_the_configuration(how: str) -> None:
    bounds, key = CopyBounds(), ("p", SHADOW.target.name)
    bounds.configure(100.0, frozenset({key}))
    assert admitted(bounds, "a", 0.0, max_per_minute=1, max_concurrent=1) is None
    bounds.configure(100.0, frozenset())
    # A stream that began before may still decide a copy. The one on its way has its slot.
    assert admitted(bounds, "b", 1.0, max_concurrent=1) is CopyRefusal.CONCURRENT
    assert bounds.on_their_way(1.0) == 1
    if how == "ended":
        bounds.ended(("a", "t0"))
    assert bounds.on_their_way(CLAIM_S) == 0
    bounds.configure(100.0, frozenset({key}))
    assert admitted(bounds, "c", CLAIM_S, max_per_minute=1) is None


def test_a_copy_decided_when_its_shadow_has_left_is_bounded_too() -> None:
    bounds = CopyBounds()
    bounds.configure(100.0, frozenset())
    assert admitted(bounds, "a", 0.0, max_concurrent=1) is None
    assert admitted(bounds, "b", CLAIM_S, max_concurrent=1) is None
    assert admitted(bounds, "c", CLAIM_S, max_concurrent=1) is CopyRefusal.CONCURRENT
    bounds.began(("b", "t0"), CLAIM_S)
    assert bounds.on_their_way(CLAIM_S + 99.0) == 1
    bounds.ended(("b", "t0"))
    assert bounds.on_their_way(CLAIM_S + 99.0) == 0


def test_each_of_several_processes_has_its_part_of_the_bounds() -> None:
    bounds = CopyBounds(shared_by=2)
    admissions = [admitted(bounds, pair, max_concurrent=3) for pair in "abc"]
    assert admissions == [None, None, CopyRefusal.CONCURRENT]
    bounds = CopyBounds(shared_by=4)
    admissions = [admitted(bounds, pair, max_per_minute=8) for pair in "abc"]
    assert admissions == [None, None, CopyRefusal.RATE]


def test_a_part_is_enough_for_one_request_if_the_bound_is() -> None:
    bounds = CopyBounds(shared_by=8)
    assert admitted(bounds, "a", copies=2, max_concurrent=2) is None
    assert admitted(bounds, "b", copies=2, max_concurrent=2) is CopyRefusal.CONCURRENT
    assert admitted(CopyBounds(shared_by=8), "c", copies=2, max_concurrent=1) is CopyRefusal.CONCURRENT
