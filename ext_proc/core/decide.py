"""The decision: a pure function of the configuration, the call, and what the router said of it.

    explicit pin -> alias -> session -> router -> policy or domain
        -> split (sticky bucket) -> target, fallbacks, shadow

No clock, no randomness, no I/O. Same inputs, same decision: in production, in a test, in
`arch-ext-proc explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ext_proc.core import affinity, failover, split
from ext_proc.core.errors import Reason
from ext_proc.core.ports import Kept
from ext_proc.core.types import (
    WHOLE_PER_10K,
    Arm,
    Caller,
    Chain,
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
from ext_proc.core.verdict import settle


@dataclass(frozen=True, slots=True)
class Question:
    """What only the router can say: which of these policies the call falls under."""

    call: LlmCall
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
    question = question_of(snapshot, call)
    if not question.policies:
        return Decision(snapshot.default, Reason.NO_POLICIES)
    if not any(message.role == "user" and message.text.strip() for message in call.messages):
        return Decision(snapshot.default, Reason.NO_CONVERSATION)
    return question


def decide(snapshot: Snapshot, question: Question, verdict: Verdict, caller: Caller) -> Decision:
    """Turn a verdict into a target, and into who is tried when that one fails."""
    if verdict.failure is not None:
        return Decision(snapshot.on_failure, verdict.failure)
    policy, reason = settle(verdict, question.policies, snapshot.confidence)
    if policy is not None and policy in question.routes:
        return follow(snapshot, question, question.routes[policy], caller, reason)
    return Decision(snapshot.default, reason if policy is None else Reason.NO_POLICY_MATCHED)


def stay(snapshot: Snapshot, question: Question, kept: Kept | None, caller: Caller) -> Decision | None:
    """Where the user's message went before, while the user said nothing new. None: ask the router.

    `kept` is what was decided about that message.
    Source: docs/adr/0022-a-session-stays-for-a-users-message.md.
    """
    if kept is None or not affinity.continues(question.call):
        return None
    if kept.policy is None:
        return Decision(snapshot.default, Reason.SESSION)
    route = question.routes.get(kept.policy)
    return None if route is None else follow(snapshot, question, route, caller, Reason.SESSION)


def follow(
    snapshot: Snapshot, question: Question, route: Route, caller: Caller, reason: Reason = Reason.POLICY
) -> Decision:
    """Go where a policy's route leads this session."""
    name, call = route.policy.name, question.call
    key = affinity.session_key(call, caller, route.sticky)
    bucket = affinity.bucket_of(key, name, snapshot.salt)
    # Whoever did not come to an arm by chance is no sample of its sessions: neither copied nor observed.
    assigned = _assigned_arm(route, call, caller)
    arm = assigned or split.choose_arm(route.arms, bucket)
    needs = failover.needs_of(call)
    ranked = failover.capable(arm, route.fallbacks, needs)
    target = ranked[0] if ranked else arm.target
    # Envoy may take another arm than this one, so it gets only calls that all of them can serve.
    envoy_splits = route.envoy_splits and assigned is None and failover.all_capable(route, needs)
    shadow = None
    if route.shadows and assigned is None:
        # A purpose of its own: with the split's bucket, a shadow would copy one arm's sessions only.
        shadow = split.choose_shadow(route.shadows, affinity.bucket_of(key, f"shadow {name}", snapshot.salt))
        shadow = shadow if shadow is not None and shadow.target.supports.serves(needs) else None
    # A call that one arm could not have served is of no arm: the others would be compared over calls that it
    # never gets.
    is_comparable = all(other.target.supports.serves(needs) for other in route.arms)
    return Decision(
        target=target,
        reason=reason if ranked else Reason.NO_CAPABLE_TARGET,
        policy=name,
        arm=arm.name if is_comparable else None,
        bucket=bucket,
        shadow=shadow,
        observed=route.observed and assigned is None,
        chain=failover.chain_of_arm(route, arm) if envoy_splits else _chain(snapshot, ranked, route),
        envoy_splits=envoy_splits,
        inline=snapshot.routes.get(name) is not route,
    )


def _assigned_arm(route: Route, call: LlmCall, caller: Caller) -> Arm | None:
    """The arm of a tester's choice, or of the lists of ids; None: the bucket decides."""
    wanted = next((arm for arm in route.arms if arm.name == caller.arm), None)
    if wanted is not None:
        return wanted
    ids = {caller.pin, call.conversation_id, call.user_id}
    if not route.never.isdisjoint(ids):
        return route.arms[0]
    return route.arms[1] if len(route.arms) > 1 and not route.always.isdisjoint(ids) else None


def _chain(snapshot: Snapshot, ranked: tuple[Target, ...], route: Route) -> Chain | None:
    """The chain of these targets, if Envoy has a cluster for it: a request's own policy may rank any."""
    chain = failover.chain_of(ranked, route.retry)
    return chain if chain is not None and chain.cluster in snapshot.chains else None


def _pinned(snapshot: Snapshot, call: LlmCall) -> Decision | None:
    if call.model is None:
        return None
    if target := snapshot.targets.get(call.model):
        return Decision(target, Reason.PINNED)
    if target := snapshot.aliases.get(call.model):
        return Decision(target, Reason.ALIAS)
    return None


def question_of(snapshot: Snapshot, call: LlmCall) -> Question:
    """The policies that this call is to be put under: those it brought along, or else the file's."""
    routes = {}
    for given in call.inline_policies or ():
        if route := _inline_route(snapshot, given):
            routes[given.policy.name] = route
    if routes:
        return Question(call, tuple(route.policy for route in routes.values()), routes)
    return Question(call, snapshot.policies, snapshot.routes)


def _inline_route(snapshot: Snapshot, given: InlinePolicy) -> Route | None:
    """A request may name only targets of the file; a policy that names none of them does not count."""
    targets = [target for name in given.models if (target := _known(snapshot, name))]
    if not targets:
        return None
    arms = (Arm("baseline", targets[0], WHOLE_PER_10K),)
    return Route(given.policy, arms, fallbacks=tuple(targets[1:]), retry=snapshot.retry)


def _known(snapshot: Snapshot, name: str) -> Target | None:
    return snapshot.targets.get(name) or snapshot.aliases.get(name) or snapshot.models.get(name)
