"""What several workers' sums add up to: what one process that saw it all would show."""

from __future__ import annotations

import json
from typing import Any

from ext_proc.admin.overview import overview_of
from ext_proc.core.errors import Reason
from ext_proc.core.observation import Observation, Role
from ext_proc.core.types import Decision, Outcome, Snapshot
from ext_proc.telemetry.activity import SLOT_S, Activity
from ext_proc.workers.overviews import joined_overviews
from tests.support.builders import a_route, a_snapshot, a_target

PRESENT, NEXT = a_target("vllm/present"), a_target("vllm/next")
SNAPSHOT = a_snapshot(routes=(a_route(PRESENT, NEXT, policy="coding"), a_route(PRESENT, policy="legal")))
NOW = 1_000_002.0

Happening = tuple[float, Any]
"""When, and what is called with an `Activity`."""


def decided(policy: str = "coding", **changes: Any) -> Any:
    decision = Decision(**{"target": PRESENT, "reason": Reason.POLICY, "arm": "baseline", **changes})
    return lambda activity: activity.decided("r", policy, 0.9, Outcome(decision, 0.004, None, 0.003))


def answered(status: int = 200) -> Any:
    told = Observation("r", "coding", "baseline", PRESENT.name, Role.PRIMARY, status, 0.5, at=NOW)
    return lambda activity: activity.observed(told)


def shown(*happenings: Happening, at: float = NOW, snapshot: Snapshot = SNAPSHOT) -> Any:
    now = [NOW - 60]
    activity = Activity(clock=lambda: now[0])
    for now[0], happening in happenings:
        happening(activity)
    now[0] = at
    return json.loads(
        json.dumps({"version": "1", "changes": "free", **overview_of(snapshot, activity.sums())})
    )


HAPPENINGS: list[Happening] = [
    (NOW - 40, decided()),
    (NOW - 40, decided(target=NEXT, arm="canary")),
    (NOW - 30, answered(503)),
    (NOW - 30, decided(policy="", arm=None, reason=Reason.ROUTER_TIMEOUT)),
    (NOW - 20, decided(policy="legal", target=NEXT, arm=None)),
    (NOW - 20, lambda activity: activity.fault("stream", "bug")),
    (NOW - 10, decided(policy="legal")),
    (NOW, decided()),
]


def test_two_workers_show_what_one_would() -> None:
    parts = [shown(*HAPPENINGS[::2]), shown(*HAPPENINGS[1::2]), shown()]
    assert joined_overviews(list(enumerate(parts))) == shown(*HAPPENINGS)


def test_one_that_was_asked_before_the_next_slot_began_is_moved_to_its_place() -> None:
    late = NOW + SLOT_S
    parts = [shown(*HAPPENINGS[::2], at=late), shown(*HAPPENINGS[1::2])]
    assert joined_overviews(list(enumerate(parts))) == shown(*HAPPENINGS, at=late)


def test_workers_with_different_revisions_are_seen_to_be() -> None:
    other = a_snapshot(routes=(a_route(NEXT, policy="coding"),), revision="r2")
    parts = [
        (1, shown((NOW, decided()))),
        (2, shown((NOW, decided(target=NEXT)), (NOW, decided(policy="new")), snapshot=other)),
    ]
    found = joined_overviews(parts)
    assert found["revision"] == "r1 / r2"
    assert [
        (one["arm"], one["model"], one["configured"], one["decided"])
        for one in found["policies"][0]["targets"]
    ] == [
        ("baseline", "vllm/present", 50, 1),
        ("canary", "vllm/next", 50, 0),
        ("baseline", "vllm/next", None, 1),
    ]
    assert [(one["name"], one["targets"][0]["decided"]) for one in found["others"]] == [("new", 1)]
    assert sum(found["decided"]) == 3
