"""What a rollout's metrics need from the rest of the file to be ever decided, and what of it is missing."""

from __future__ import annotations

from collections.abc import Iterator

from ext_proc.core.rollout_plan import COMPARED, LimitKind, MetricKind, RolloutPlan
from ext_proc.core.types import Arm, Route


def never_decided(plan: RolloutPlan, route: Route, canary: Arm, has_judge: bool) -> Iterator[tuple[str, str]]:
    """What will stay undecided, in words, with what to do about it: such a rollout pauses at its deadline."""
    kinds = {rule.kind for rule in plan.metrics}
    shadows = [shadow for shadow in route.shadows if shadow.target == canary.target]
    for kind in sorted(kinds & set(COMPARED)):
        if not shadows:
            hint = f"write shadow: [{{model: {canary.target.name}, percent: 10}}] at the policy"
            yield f'"{kind}" has nothing to compare: no shadow of this policy copies to the canary', hint
    has_floor = any(shadow.noise_floor for shadow in shadows)
    if shadows and not has_floor and any(rule.noise_floor for rule in plan.metrics):
        yield "no shadow of the canary measures the noise floor", "write noise_floor: true at the shadow too"
    if MetricKind.JUDGE in kinds and not has_judge:
        yield '"judge" has no judge', "write comparison: {judge: {model: …}}"
    if kinds and MetricKind.LEFT_SHARE not in kinds:
        text = "a canary that hangs until its clients leave is not noticed: the metrics lack left_share"
        yield text, "add left_share to the metrics"
    unpriced = [target.name for target in (route.arms[0].target, canary.target) if target.price is None]
    if unpriced and MetricKind.COST in kinds:
        yield f'"cost" is not known: {", ".join(unpriced)} has no price', "give the provider a price"
    if canary.target.price is None and any(limit.kind is LimitKind.COST for limit in plan.hard_limits):
        yield f"a hard limit on cost is never crossed: {canary.target.name} has no price", "give it a price"
