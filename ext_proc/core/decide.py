"""The decision: a pure function of the configuration, the call, and what the router said of it.

    explicit pin -> alias -> router -> policy -> split (sticky bucket) -> target, shadow

No clock, no randomness, no I/O. Same inputs, same decision: in production, in a test, in
`arch-ext-proc explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ext_proc.core import affinity, split
from ext_proc.core.errors import Reason
from ext_proc.core.types import (
    WHOLE_PER_10K,
    Arm,
    Decision,
    Dialect,
    InlinePolicy,
    LlmCall,
    Policy,
    Route,
    Snapshot,
    Target,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Question:
    """What only the router can say: which of these policies the call falls under."""

    policies: tuple[Policy, ...]
    routes: Mapping[str, Route]


def settle_or_ask(snapshot: Snapshot, call: LlmCall) -> Decision | Question:
    """Decide what needs no router; otherwise say what to ask it."""
    pinned = _pinned(snapshot, call)
    if pinned:
        return pinned
    if call.dialect is Dialect.EMBEDDINGS:
        # Vectors of two models do not compare: an embedding model is never swapped by topic.
        target = replace(snapshot.default, model=call.model or snapshot.default.model)
        return Decision(target, Reason.EMBEDDINGS)
    question = _question(snapshot, call)
    if not question.policies:
        return Decision(snapshot.default, Reason.NO_POLICIES)
    if not any(message.role == "user" and message.text.strip() for message in call.messages):
        return Decision(snapshot.default, Reason.NO_CONVERSATION)
    return question


def decide(snapshot: Snapshot, question: Question, verdict: Verdict, key: bytes) -> Decision:
    """Turn a verdict into a target. `key` is the session's, from `affinity.session_key`."""
    if verdict.failure is not None:
        return Decision(snapshot.on_failure, verdict.failure)
    route = question.routes.get(verdict.policy) if verdict.policy is not None else None
    if route is None:
        return Decision(snapshot.default, Reason.NO_POLICY_MATCHED)
    name = route.policy.name
    bucket = affinity.bucket_of(key, name, snapshot.salt)
    arm = split.choose_arm(route.arms, bucket)
    shadow = None
    if route.shadows:
        # A purpose of its own: with the split's bucket, a shadow would copy one arm's sessions only.
        shadow = split.choose_shadow(route.shadows, affinity.bucket_of(key, f"shadow {name}", snapshot.salt))
    return Decision(
        target=arm.target,
        reason=Reason.POLICY,
        policy=name,
        arm=arm.name,
        bucket=bucket,
        shadow=shadow,
        fallbacks=route.fallbacks,
        observed=route.observed,
    )


def _pinned(snapshot: Snapshot, call: LlmCall) -> Decision | None:
    if call.model is None:
        return None
    if target := snapshot.targets.get(call.model):
        return Decision(target, Reason.PINNED)
    if target := snapshot.aliases.get(call.model):
        return Decision(target, Reason.ALIAS)
    return None


def _question(snapshot: Snapshot, call: LlmCall) -> Question:
    routes = {}
    for given in call.inline_policies or ():
        if route := _inline_route(snapshot, given):
            routes[given.policy.name] = route
    if routes:
        return Question(tuple(route.policy for route in routes.values()), routes)
    return Question(snapshot.policies, snapshot.routes)


def _inline_route(snapshot: Snapshot, given: InlinePolicy) -> Route | None:
    """A request may name only targets of the file; a policy that names none of them does not count."""
    targets = [target for name in given.models if (target := _known(snapshot, name))]
    if not targets:
        return None
    return Route(given.policy, (Arm("baseline", targets[0], WHOLE_PER_10K),), fallbacks=tuple(targets[1:]))


def _known(snapshot: Snapshot, name: str) -> Target | None:
    return snapshot.targets.get(name) or snapshot.aliases.get(name) or snapshot.models.get(name)
