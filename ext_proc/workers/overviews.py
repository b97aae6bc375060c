"""What several workers' `/overview` add up to. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ext_proc.telemetry.activity import BOUNDS_MS, times_of

Fields = Mapping[str, Any]

_COUNTS = ("decided", "answered", "failed")


def joined_overviews(parts: Sequence[tuple[int, Fields]]) -> dict[str, Any]:
    """One answer of `GET /overview` from those of all workers, by number.

    What is configured is the first one's. What another has besides, because it has another revision, is
    among the `others`, and `revision` names both.
    """
    found = [part for _, part in parts]
    first = found[0]
    newest = max(_slot(part) for part in found)
    # Trends end with the slot in which each was asked.
    late = [newest - _slot(part) for part in found]
    targets: dict[tuple[str, str, str], list[tuple[int, Fields]]] = {}
    for part, by in zip(found, late, strict=True):
        for policy in (*part["policies"], *part["others"]):
            for target in policy["targets"]:
                key = policy["name"], target["arm"], target["model"]
                targets.setdefault(key, []).append((by, target))
    policies = [_policy(policy, targets) for policy in first["policies"]]
    others: dict[str, list[dict[str, Any]]] = {}
    for (name, _, _), seen in sorted(targets.items()):
        target = _figures(seen)
        if any(target[count] for count in _COUNTS):
            others.setdefault(name, []).append(target)
    by_name = {policy["name"]: policy for policy in policies}
    for name in [name for name in others if name in by_name]:
        by_name[name]["targets"] += [{**target, "configured": None} for target in others.pop(name)]
    return {
        **first,
        "at": max(part["at"] for part in found),
        "started_at": min(part["started_at"] for part in found),
        "revision": " / ".join(dict.fromkeys(part["revision"] for part in found)),
        "decided": _trend((by, part["decided"]) for part, by in zip(found, late, strict=True)),
        "reasons": _counted([part["reasons"] for part in found]),
        "faults": _counted([part["faults"] for part in found]),
        "decision": _times(part["decision"] for part in found),
        "router": _times(part["router"] for part in found),
        "policies": policies,
        "others": [{"name": name, "targets": seen} for name, seen in others.items()],
    }


def _slot(part: Fields) -> int:
    return int(part["at"] // part["slot_s"])


def _policy(policy: Fields, targets: dict[tuple[str, str, str], list[tuple[int, Fields]]]) -> dict[str, Any]:
    """A policy with what all saw of its targets, which are taken out of `targets`."""
    return {
        **policy,
        "targets": [
            _figures(targets.pop((policy["name"], target["arm"], target["model"])))
            for target in policy["targets"]
        ],
    }


def _figures(seen: Sequence[tuple[int, Fields]]) -> dict[str, Any]:
    _, first = seen[0]
    sums = {count: sum(target[count] for _, target in seen) for count in _COUNTS}
    return {**first, **sums, "trend": _trend((by, target["trend"]) for by, target in seen)}


def _trend(parts: Iterable[tuple[int, Sequence[int]]]) -> list[int]:
    """The sum of trends, each of which is so many slots behind. A target that nobody chose has none."""
    shifted = [[*trend[by:], *[0] * min(by, len(trend))] for by, trend in parts if trend]
    return [sum(values) for values in zip(*shifted, strict=True)]


def _counted(parts: Iterable[Sequence[Fields]]) -> list[dict[str, Any]]:
    """Rows whose other fields are equal with the sum of their counts, the highest first."""
    counts: Counter[tuple[tuple[str, Any], ...]] = Counter()
    for rows in parts:
        for row in rows:
            counts[tuple((name, value) for name, value in row.items() if name != "count")] += row["count"]
    return [{**dict(key), "count": count} for key, count in counts.most_common()]


def _times(parts: Iterable[Fields]) -> dict[str, Any]:
    counts: Counter[int] = Counter()
    for part in parts:
        for upper, count in part["buckets"]:
            counts[BOUNDS_MS.index(upper)] += count
    return times_of(counts)
