"""What several workers' comparisons add up to: what one process that saw them all would show."""

from __future__ import annotations

import json
from typing import Any

from ext_proc.comparisons import RecentComparisons
from ext_proc.comparisons.recent import KEPT as KEPT_BY_ONE
from ext_proc.core.observation import Comparison, Preference, Role
from ext_proc.workers.shadows import KEPT, joined_shadows
from tests.support.pairs import an_answer

PRIMARY, SHADOW = an_answer().observation, an_answer(Role.SHADOW).observation
NOISE = an_answer(Role.NOISE, target="a/one").observation

COMPARISONS = [
    Comparison(PRIMARY, SHADOW, 1.0, exact=True, similarity=1.0, primary_refused=False, shadow_refused=True),
    Comparison(PRIMARY, SHADOW, 2.0, exact=False, similarity=0.5, structured_equal=True),
    Comparison(PRIMARY, SHADOW, 3.0, exact=False, judge=Preference.SHADOW),
    Comparison(PRIMARY, NOISE, 4.0, exact=True, judge=Preference.TIE),
    Comparison(PRIMARY, SHADOW, 5.0),
]


def shown(*comparisons: Comparison) -> Any:
    recent = RecentComparisons()
    for comparison in comparisons:
        recent.compared(comparison)
    return json.loads(json.dumps(recent.shown()))


def test_two_workers_show_what_one_would() -> None:
    parts = [shown(*COMPARISONS[::2]), shown(*COMPARISONS[1::2]), shown()]
    assert joined_shadows(list(enumerate(parts))) == shown(*COMPARISONS)


def test_no_more_are_shown_than_one_process_shows() -> None:
    assert KEPT == KEPT_BY_ONE
    parts = [shown(*[Comparison(PRIMARY, SHADOW, float(at)) for at in range(KEPT)]) for _ in range(2)]
    recent = joined_shadows(list(enumerate(parts)))["recent"]
    assert len(recent) == KEPT
    assert recent[0]["at"] == recent[1]["at"] == KEPT - 1


def test_nobody_shows_nothing() -> None:
    assert joined_shadows([]) == shown()
