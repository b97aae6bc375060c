"""From a router's scores to what they say. Pure."""

from __future__ import annotations

import math

from ext_proc.core.errors import Reason
from ext_proc.core.types import Confidence, Policy, Scores, Verdict

_TOLERANCE = 1e-4
"""How far from [0, 1], and from 1 in sum, float32 arithmetic may end."""


def verdict_of(scores: Scores, policies: tuple[Policy, ...]) -> Verdict:
    """What the router chose; if it did not say, the best policy unless none of them is at least as
    likely, and the first of equals."""
    values = (*scores.per_policy, scores.none)
    if len(scores.per_policy) != len(policies) or not _are_probabilities(values):
        return Verdict(failure=Reason.ROUTER_GARBLED)
    pairs = tuple((policy.name, score) for policy, score in zip(policies, scores.per_policy, strict=True))
    chosen = _most_probable(scores) if scores.chosen is None else scores.chosen
    if not 0 <= chosen <= len(policies):
        return Verdict(failure=Reason.ROUTER_GARBLED)
    name = policies[chosen].name if chosen < len(policies) else None
    return Verdict(name, pairs, scores.none)


def _most_probable(scores: Scores) -> int:
    values = scores.per_policy
    best = max(range(len(values)), key=values.__getitem__)
    return best if values[best] > scores.none else len(values)


def _are_probabilities(values: tuple[float, ...]) -> bool:
    # NaN fails every comparison, so it fails these.
    in_range = all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in values)
    return in_range and math.isclose(sum(values), 1.0, abs_tol=_TOLERANCE)


def settle(verdict: Verdict, policies: tuple[Policy, ...], needed: Confidence) -> tuple[str | None, Reason]:
    """The policy that counts, and why, when a router must be so sure: the taxonomy as a ladder.

    The router's policy, if it is sure enough; else the policy that is its domain (or that it is), whose
    probability is that of all policies of the domain together; else none. An unsure choice between two
    actions of one domain is a sure choice of that domain.
    """
    name = verdict.policy
    if name is None:
        return None, Reason.NO_POLICY_MATCHED
    if needed == _ANY or _is_sure(verdict, {name}, needed):
        return name, Reason.POLICY
    domain = next((policy.domain for policy in policies if policy.name == name), None) or name
    family = {policy.name for policy in policies if domain in (policy.name, policy.domain)}
    if domain in family and _is_sure(verdict, family, needed):
        return domain, Reason.POLICY if domain == name else Reason.DOMAIN
    return None, Reason.UNSURE


_ANY = Confidence()


def _is_sure(verdict: Verdict, names: set[str], needed: Confidence) -> bool:
    """Whether these policies together are likely enough, and lead every other answer by enough."""
    mine = sum(score for name, score in verdict.scores if name in names)
    rest = max((score for name, score in verdict.scores if name not in names), default=0.0)
    lead = mine - max(rest, verdict.none)
    return mine + _TOLERANCE >= needed.threshold and lead + _TOLERANCE >= needed.margin


def confidence(verdict: Verdict) -> float:
    """The probability of what the verdict says: of its policy, or of none of them."""
    if verdict.policy is None:
        return verdict.none
    return next((score for name, score in verdict.scores if name == verdict.policy), 0.0)
