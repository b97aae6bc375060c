"""What is to be said of a rollout: what is known, what it waits for, what cannot be done and why."""

from __future__ import annotations

from ext_proc.core import evidence as evidence_of
from ext_proc.core.rollout_plan import COMPARED, Breach, LimitKind, RolloutPlan
from ext_proc.core.rollout_types import Command, Finding, Outcome, Phase, RolloutState, Verb
from ext_proc.core.types import WHOLE_PER_10K


def refusal(state: RolloutState, command: Command) -> str | None:
    """Why this command can do nothing now, in words for the one who gave it; None if it can."""
    phase = state.phase
    match command.verb:
        case Verb.START if phase in (Phase.PROGRESSING, Phase.PAUSED):
            return f"it is {phase}: it has been started"
        case Verb.PAUSE if phase is Phase.PAUSED or phase.is_over:
            return f"it is {phase}"
        case Verb.RESUME if phase is not Phase.PAUSED:
            return f"it is {phase}, not paused"
        case Verb.PROMOTE if phase is Phase.PROMOTED:
            return "it is promoted"
        case Verb.PROMOTE if not command.full and phase in (Phase.WAITING, Phase.ABORTED):
            return f"it is {phase}: start it, or promote it in full"
        case Verb.ABORT if phase is Phase.ABORTED:
            return "it is aborted"
    return None


def open_questions(
    state: RolloutState, plan: RolloutPlan, found: tuple[Finding, ...] | None = None
) -> tuple[str, ...]:
    """What an analysis of this step still waits for, in words; empty: only for the interval to be over.

    `found`: what `findings()` said of the same state, to save asking again.
    """
    if found is None:
        found = findings(state, plan)
    waits_for = [f"{one.metric} is {one.outcome}" for one in found if one.outcome is not Outcome.GOOD]
    if state.evidence.requests < plan.min_requests:
        waits_for.append(f"the canary has had {state.evidence.requests} of {plan.min_requests} requests")
    waits_for += [f"{name} has not passed" for name in plan.checks if name not in state.passed]
    return tuple(waits_for)


def findings(state: RolloutState, plan: RolloutPlan) -> tuple[Finding, ...]:
    """What is known of each metric; nothing where there is no canary or no baseline to compare it with."""
    if not 0 < state.weight_per_10k < WHOLE_PER_10K:
        return ()
    return evidence_of.findings(state.evidence, plan)


def finding_text(found: Finding) -> str:
    """Why a metric ends a rollout."""
    canary, baseline = ("?" if value is None else f"{value:.4g}" for value in (found.canary, found.baseline))
    if found.metric in COMPARED:  # held against a margin, not another arm, unless there is a noise floor
        return f"{found.metric} is worse: {canary} away on average over {found.n_canary} comparisons"
    return f"{found.metric} is worse: {canary} against {baseline}"


def breach_text(breach: Breach) -> str:
    """Why a hard limit ends a rollout."""
    last, limit = f"the last {breach.requests} requests", breach.limit
    match limit.kind:
        case LimitKind.ERROR_RATE:
            return f"{breach.value:.1%} of {last} failed; the hard limit is {limit.limit:.1%}"
        case LimitKind.CONSECUTIVE_ERRORS:
            return f"{last} all failed"
        case LimitKind.COST:
            return f"{last} cost {breach.value:.4g} each; the hard limit is {limit.limit:.4g}"
        case _:
            return f"{breach.value:.1%} of {last} took longer than {limit.limit:g} s ({limit.kind})"
