"""What the page and `top` show of the traffic: what is configured beside what was seen of late. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ext_proc.core.types import Route, Snapshot


def overview_of(snapshot: Snapshot, sums: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration and the sums of `telemetry.activity` as JSON's types. Shares are percentages."""
    seen: dict[str, list[dict[str, Any]]] = {}
    for arm in sums["arms"]:
        seen.setdefault(arm["policy"], []).append(arm)
    return {
        **{name: value for name, value in sums.items() if name != "arms"},
        "revision": snapshot.revision,
        "default": snapshot.default.name,
        "on_failure": snapshot.on_failure.name,
        "policies": [_policy(route, seen.pop(name, [])) for name, route in snapshot.routes.items()],
        # Decided without a policy, by one that a request brought along, or by one that was there before.
        "others": [{"name": name, "targets": arms} for name, arms in sorted(seen.items())],
    }


def _policy(route: Route, seen: list[dict[str, Any]]) -> dict[str, Any]:
    left = {(arm["arm"], arm["model"]): arm for arm in seen}
    targets = [
        {
            "arm": arm.name,
            "model": arm.target.name,
            "configured": arm.weight_per_10k / 100,
            **_figures(left.pop((arm.name, arm.target.name), None)),
        }
        for arm in route.arms
    ]
    return {
        "name": route.policy.name,
        "domain": route.policy.domain,
        "description": route.policy.description,
        "split": "envoy" if route.envoy_splits else "ext_proc",
        "fallbacks": [target.name for target in route.fallbacks],
        "shadows": [
            {"model": shadow.target.name, "percent": shadow.percent_per_10k / 100} for shadow in route.shadows
        ],
        # A fallback that got a call which the arm's target cannot serve, or an arm that was there before.
        "targets": targets
        + [{**found, "configured": None} for found in left.values() if found["decided"] or found["answered"]],
    }


def _figures(found: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if found is None:
        return {"decided": 0, "answered": 0, "failed": 0, "trend": []}
    return {name: found[name] for name in ("decided", "answered", "failed", "trend")}
