"""What was decided for one request and why, as `explain` prints it and the admin page shows it. Pure."""

from __future__ import annotations

from typing import Any

from ext_proc.core.split import laid_out
from ext_proc.core.types import Outcome, Route, Snapshot, Target


def explanation_of(outcome: Outcome, snapshot: Snapshot) -> dict[str, Any]:
    """What was decided and why, as JSON's types. Shares are percentages, scores probabilities."""
    decision, verdict = outcome.decision, outcome.verdict
    route = snapshot.routes.get(decision.policy) if decision.policy is not None else None
    return {
        "reason": decision.reason.value,
        "policy": decision.policy,
        "target": _target(decision.target),
        "arm": decision.arm,
        "bucket": decision.bucket,
        "scores": dict(verdict.scores) if verdict else {},
        "none": verdict.none if verdict else None,
        "said": verdict.policy if verdict else None,
        "needed": {"threshold": snapshot.confidence.threshold, "margin": snapshot.confidence.margin},
        "split": _split(route, decision.arm) if route else [],
        "shadow": decision.shadow.target.name if decision.shadow else None,
        "shadows": [
            {"model": shadow.target.name, "percent": shadow.percent_per_10k / 100}
            for shadow in (route.shadows if route else ())
        ],
        "fallbacks": [target.name for target in decision.chain.targets[1:]] if decision.chain else [],
        "timings_ms": {
            "router": None if outcome.router_s is None else round(outcome.router_s * 1000, 3),
            "total": round(outcome.total_s * 1000, 3),
        },
        "revision": snapshot.revision,
    }


def _target(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "model": target.model,
        "cluster": target.cluster,
        "authority": target.authority,
        "path_prefix": target.path_prefix,
    }


def _split(route: Route, chosen: str | None) -> list[dict[str, Any]]:
    rows, start = [], 0
    for arm in laid_out(route.arms):
        end = start + arm.weight_per_10k
        rows.append(
            {
                "arm": arm.name,
                "model": arm.target.name,
                "percent": arm.weight_per_10k / 100,
                "buckets": [start, end],
                "chosen": arm.name == chosen,
            }
        )
        start = end
    return rows
