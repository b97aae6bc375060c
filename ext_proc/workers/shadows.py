"""What several workers' `/shadows` add up to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KEPT = 200
"""How many of the newest comparisons are shown, as one process does."""

_MEANS: Mapping[str, str] = {
    "exact": "compared",
    "primary_refused": "compared",
    "shadow_refused": "compared",
    "similarity": "similarities",
    "structured_equal": "structured",
}
"""Each mean, with the count of those that it is over."""


def joined_shadows(answers: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """One answer of `GET /shadows` from those of all workers, by number."""
    parts = [part for _, part in answers]
    totals: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for part in parts:
        for total in part["totals"]:
            totals.setdefault((total["policy"], total["shadow"], total["role"]), []).append(total)
    recent = [comparison for part in parts for comparison in part["recent"]]
    recent.sort(key=lambda comparison: comparison["at"], reverse=True)
    return {"totals": [_total(totals[key]) for key in sorted(totals)], "recent": recent[:KEPT]}


def _total(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts are added up, means weighted, and the judge's votes counted."""
    joined: dict[str, Any] = {}
    for name, value in parts[0].items():
        if name in _MEANS:
            joined[name] = _mean(parts, name, _MEANS[name])
        elif name == "judge":
            joined[name] = {vote: sum(part[name][vote] for part in parts) for vote in value}
        elif isinstance(value, int):
            joined[name] = sum(part[name] for part in parts)
        else:
            joined[name] = value
    return joined


def _mean(parts: Sequence[Mapping[str, Any]], name: str, weight: str) -> float | None:
    known = [part for part in parts if part[name] is not None]
    whole = sum(part[weight] for part in known)
    return round(sum(part[name] * part[weight] for part in known) / whole, 4) if whole else None
