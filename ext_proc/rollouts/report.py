"""A rollout as the admin API and the command line show it: what is declared beside what is."""

from __future__ import annotations

from typing import Any

from ext_proc.core.rollout_plan import Analysis, MetricRule, Pause, SetWeight, Step
from ext_proc.core.rollout_settings import PolicyRollout
from ext_proc.core.rollout_types import Finding, Phase, RolloutState
from ext_proc.core.rollout_words import findings, open_questions
from ext_proc.rollouts.tracked import Tracked


def report_of(one: Tracked) -> dict[str, Any]:
    """Everything about one rollout, as JSON's types. Weights and shares are percentages."""
    state, plan = one.state, one.plan
    share = one.share_observed
    return {
        "policy": plan.policy,
        "declared": _declared(one.rollout),
        "current": {
            "target": state.target,
            "phase": state.phase.value,
            "run": state.run,
            "step": state.step,
            "doing": text_of(plan.steps[state.step]) if state.step < len(plan.steps) else None,
            "weight": state.weight_per_10k / 100,
            "weight_here": one.weight_per_10k / 100,
            "cause": state.cause.value,
            "text": state.text,
            "changed_at": state.changed_at,
            "asks": state.hook.value if state.hook is not None else None,
            "waits_for": _waits_for(one),
        },
        "exposed": one.exposed + one.pending.exposed,
        "share_here": None if share is None else round(share * 100, 2),
        "evidence": [_evidence(finding) for finding in findings(state, plan)],
        "checks": {
            name: {"passed": name in state.passed, "failures": state.failures.get(name, 0)}
            for name in plan.checks
        },
        "unreadable": one.unreadable or None,
    }


def where(state: RolloutState, steps: int) -> str:
    """One line for people."""
    step = f", step {state.step + 1} of {steps}" if state.phase is Phase.PROGRESSING else ""
    return f"{state.phase} at {state.weight_per_10k / 100:g} % ({state.target}){step}: {state.text}"


def text_of(step: Step) -> str:
    match step:
        case SetWeight(weight):
            return f"{weight / 100:g} %"
        case Pause(None):
            return "pause"
        case Pause(duration):
            return f"pause {duration:g} s"
        case Analysis():
            return "analysis"


def _declared(rollout: PolicyRollout) -> dict[str, Any]:
    plan = rollout.plan
    return {
        "baseline": rollout.baseline,
        "target": plan.target,
        "steps": [text_of(step) for step in plan.steps],
        "interval_s": plan.interval_s,
        "min_requests": plan.min_requests,
        "metrics": [_rule(rule) for rule in plan.metrics],
        "checks": list(plan.checks),
        "max_failures": plan.max_failures,
        "hard_limits": [
            {"metric": limit.kind.value, "limit": limit.limit, "requests": limit.requests}
            for limit in plan.hard_limits
        ],
        "on_failure": plan.on_failure.value,
        "promotion": plan.promotion.value,
        "start": "auto" if plan.auto_start else "manual",
        "deadline_s": plan.deadline_s,
        "false_rollback_rate": plan.false_rollback_rate,
        "hooks": sorted(hook.value for hook in plan.hooks),
    }


def _rule(rule: MetricRule) -> dict[str, Any]:
    return {
        "metric": rule.kind.value,
        "tolerance": rule.tolerance,
        "max_degradation": rule.max_degradation,
        "relative": rule.relative,
    }


def _waits_for(one: Tracked) -> list[str]:
    state, plan = one.state, one.plan
    if state.phase is Phase.PAUSED:
        return ["somebody to resume, promote or abort it"]
    if state.phase is not Phase.PROGRESSING or state.step >= len(plan.steps):
        return []
    if state.hook is not None:
        return [f"the hook {state.hook.value}"]
    if isinstance(plan.steps[state.step], Analysis):
        return list(open_questions(state, plan))
    return []


def _evidence(finding: Finding) -> dict[str, Any]:
    """`worse` and `good`: how far each test is from deciding, 1 being decided."""
    return {
        "metric": finding.metric.value,
        "outcome": finding.outcome.value,
        "baseline": finding.baseline,
        "canary": finding.canary,
        "n_baseline": finding.n_baseline,
        "n_canary": finding.n_canary,
        "worse": round(finding.log_worse / finding.needed_worse, 4),
        "good": round(finding.log_good / finding.needed_good, 4),
        "dispersion": round(finding.dispersion, 3),
    }
