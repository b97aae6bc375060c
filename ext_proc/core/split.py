"""A bucket to an arm of a split, and a bucket to a shadow.

The layout of the arms is what makes a canary sticky: the baseline (first) lies in the middle, the
canaries grow into it from both ends, `canary` from the bottom, `canary-2` from the top, further ones
behind these. So with one or two canaries, raising one's weight at the baseline's cost moves sessions
from the baseline to that canary and touches nobody else. With three or more no fixed layout can do
that for each of them (docs/adr/0004-affinity-hash.md): a canary behind another shifts with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ext_proc.core.types import WHOLE_PER_10K, Arm, Shadow, Snapshot


def laid_out(arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
    """The arms in the order of their intervals from bucket 0 up."""
    baseline, *canaries = arms
    return (*canaries[0::2], baseline, *reversed(canaries[1::2]))


def choose_arm(arms: tuple[Arm, ...], bucket: int) -> Arm:
    """The arm whose interval holds the bucket.

    Shapes: at least one arm, weights summing to 10,000; bucket in range(10_000).
    """
    if len(arms) == 1:
        return arms[0]
    upper = 0
    for arm in laid_out(arms):
        upper += arm.weight_per_10k
        if bucket < upper:
            return arm
    raise ValueError(f"bucket {bucket} is outside of weights that sum to {upper}, not {WHOLE_PER_10K}")


def choose_shadow(shadows: tuple[Shadow, ...], bucket: int) -> Shadow | None:
    """The shadow whose share of the buckets holds this one, or None. At most one copy is made."""
    upper = 0
    for shadow in shadows:
        upper += shadow.percent_per_10k
        if bucket < upper:
            return shadow
    return None


def apply_weights(snapshot: Snapshot, weights: Mapping[str, Mapping[str, int]]) -> Snapshot:
    """The snapshot with other weights of canaries; each policy's baseline takes what they leave.

    Raising one canary at the baseline's cost moves sessions to that canary and no others (`laid_out`).
    Arms that are not named keep their weights. A policy or an arm that the snapshot does not have is left
    out, since a reload may have removed it; weights that do not fit together are cut down in the arms'
    order, so that the sum is always whole.

    Shapes: policy to arm to weight. Units: 0.01 % of the sessions.
    """
    routes = {
        name: replace(route, arms=_weighted(route.arms, weights[name])) if name in weights else route
        for name, route in snapshot.routes.items()
    }
    return replace(snapshot, routes=routes)


def _weighted(arms: tuple[Arm, ...], weights: Mapping[str, int]) -> tuple[Arm, ...]:
    baseline, *canaries = arms
    left, changed = WHOLE_PER_10K, []
    for arm in canaries:
        weight = min(left, max(0, weights.get(arm.name, arm.weight_per_10k)))
        changed.append(replace(arm, weight_per_10k=weight))
        left -= weight
    return (replace(baseline, weight_per_10k=left), *changed)
