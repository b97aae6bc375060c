"""A call, a configuration and a verdict to a decision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ext_proc.core.affinity import arm_of_tester, bucket_of, session_key
from ext_proc.core.decide import Question, decide, settle_or_ask
from ext_proc.core.errors import Reason
from ext_proc.core.failover import chain_of, chains_of
from ext_proc.core.split import choose_arm
from ext_proc.core.types import (
    Arm,
    Caller,
    Decision,
    Dialect,
    InlinePolicy,
    LlmCall,
    Message,
    Policy,
    Retry,
    Route,
    Secret,
    Shadow,
    Snapshot,
    Sticky,
    Supports,
    Target,
    Verdict,
)

SMALL = Target("openai/small", "small", "openai")
LARGE = Target("openai/large", "large", "openai")
CODE = Policy("code", "writing code")


def arms(*weights: int) -> tuple[Arm, ...]:
    names = ("baseline", "canary", "canary-2")
    return tuple(Arm(name, LARGE, weight) for name, weight in zip(names, weights, strict=False))


def a_snapshot(route: Route | None = None) -> Snapshot:
    route = route or Route(CODE, (Arm("baseline", LARGE, 10_000),))
    return Snapshot(
        revision="r",
        policies=(route.policy,),
        routes={route.policy.name: route},
        targets={"openai/small": SMALL, "openai/large": LARGE},
        models={"small": SMALL, "large": LARGE},
        aliases={"fast": SMALL},
        default=SMALL,
        on_failure=LARGE,
        salt=b"salt",
        chains=chains_of([route]),
    )


def a_call(text: str = "hi", model: str | None = "gpt", **changes: object) -> LlmCall:
    call = LlmCall(Dialect.CHAT_COMPLETIONS, model, (Message("user", text),))
    return replace(call, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "target", "reason"),
    [
        (a_call(model="openai/large"), LARGE, Reason.PINNED),
        (a_call(model="fast"), SMALL, Reason.ALIAS),
        (a_call(text=" "), SMALL, Reason.NO_CONVERSATION),
        (a_call(messages=(Message("system", "s"),)), SMALL, Reason.NO_CONVERSATION),
    ],
)
def test_what_needs_no_router_is_settled_without_it(call: LlmCall, target: Target, reason: Reason) -> None:
    assert settle_or_ask(a_snapshot(), call) == Decision(target, reason)


def test_a_bare_model_id_is_routed_because_applications_name_one_always() -> None:
    assert isinstance(settle_or_ask(a_snapshot(), a_call(model="large")), Question)


def test_embeddings_keep_their_model() -> None:
    answer = settle_or_ask(a_snapshot(), a_call(model="embed-3", dialect=Dialect.EMBEDDINGS))
    assert answer == Decision(replace(SMALL, model="embed-3"), Reason.EMBEDDINGS)


def test_no_policies_mean_the_default() -> None:
    snapshot = replace(a_snapshot(), policies=(), routes={})
    assert settle_or_ask(snapshot, a_call()) == Decision(SMALL, Reason.NO_POLICIES)


def test_inline_policies_replace_those_of_the_file_and_may_name_only_its_targets() -> None:
    mine = InlinePolicy(Policy("mine", "m"), ("nobody/x", "large", "fast"))
    theirs = InlinePolicy(Policy("theirs", "t"), ("nobody/x",))
    question = settle_or_ask(a_snapshot(), a_call(inline_policies=(mine, theirs)))
    assert isinstance(question, Question)
    assert question.policies == (Policy("mine", "m"),)
    assert question.routes["mine"].arms[0].target == LARGE
    assert question.routes["mine"].fallbacks == (SMALL,)


def test_inline_policies_without_a_known_target_leave_those_of_the_file() -> None:
    call = a_call(inline_policies=(InlinePolicy(Policy("x", ""), ("nobody/x",)),))
    question = settle_or_ask(a_snapshot(), call)
    assert isinstance(question, Question)
    assert question.policies == (CODE,)


def decided(
    verdict: Verdict, route: Route | None = None, pin: str = "k", call: LlmCall | None = None
) -> Decision:
    snapshot = a_snapshot(route)
    question = Question(call or a_call(), snapshot.policies, snapshot.routes)
    return decide(snapshot, question, verdict, Caller("r", pin))


@pytest.mark.parametrize("reason", [Reason.ROUTER_TIMEOUT, Reason.ROUTER_BUSY, Reason.ROUTER_GARBLED])
def test_a_failed_router_leads_to_on_failure_with_its_reason(reason: Reason) -> None:
    assert decided(Verdict(failure=reason)) == Decision(LARGE, reason)


@pytest.mark.parametrize("policy", [None, "unknown"])
def test_no_policy_leads_to_the_default(policy: str | None) -> None:
    assert decided(Verdict(policy)) == Decision(SMALL, Reason.NO_POLICY_MATCHED)


def test_a_policy_leads_to_its_target_bucket_and_shadow() -> None:
    shadow = Shadow(SMALL, 10_000)
    route = Route(CODE, arms(10_000), (shadow,), (SMALL,))
    decision = decided(Verdict("code"), route)
    bucket = bucket_of(b"pin:k", "code", b"salt")
    chain = chain_of((LARGE, SMALL), Retry())
    assert decision == Decision(LARGE, Reason.POLICY, "code", "baseline", bucket, shadow, chain=chain)


@pytest.mark.parametrize("weights", [(9_000, 1_000), (8_000, 1_000, 1_000)])
@pytest.mark.parametrize("raised", [1, 2])
def test_raising_a_canary_moves_sessions_from_the_baseline_to_it_and_nobody_else(
    weights: tuple[int, ...], raised: int
) -> None:
    if raised >= len(weights):
        raised = 1
    after = list(weights)
    after[0] -= 2_000
    after[raised] += 2_000
    moves = {
        (choose_arm(arms(*weights), bucket).name, choose_arm(arms(*after), bucket).name)
        for bucket in range(10_000)
    }
    canary = arms(*weights)[raised].name
    assert {move for move in moves if move[0] != move[1]} == {("baseline", canary)}


def test_each_arm_gets_its_share_of_the_buckets() -> None:
    chosen = [choose_arm(arms(8_000, 1_500, 500), bucket).name for bucket in range(10_000)]
    assert [chosen.count(name) for name in ("baseline", "canary", "canary-2")] == [8_000, 1_500, 500]


def test_buckets_of_many_sessions_are_even() -> None:
    buckets = [bucket_of(str(number).encode(), "p", b"s") for number in range(20_000)]
    share = sum(bucket < 1_000 for bucket in buckets) / len(buckets)
    assert abs(share - 0.1) < 4 * (0.1 * 0.9 / len(buckets)) ** 0.5


def test_a_session_is_known_by_its_pin_then_its_ids_then_its_beginning() -> None:
    call = a_call(conversation_id="x", user_id="x")
    assert session_key(call, Caller("r", "x")) == b"pin:x"
    assert session_key(call, Caller("r", None)) == b"conversation:x"
    assert session_key(replace(call, conversation_id=None), Caller("r", None)) == b"user:x"
    assert session_key(a_call(messages=()), Caller("r", None)) == b"request:r"


def test_a_conversation_without_an_id_is_the_same_session_in_its_next_turn() -> None:
    first = (Message("system", "s"), Message("user", "a"))
    later = (*first, Message("assistant", "b"), Message("user", "c"))
    assert session_key(a_call(messages=first), Caller("1", None)) == session_key(
        a_call(messages=later), Caller("2", None)
    )
    other = (Message("system", "t"), Message("user", "a"))
    assert session_key(a_call(messages=first), Caller("1", None)) != session_key(
        a_call(messages=other), Caller("1", None)
    )


def by_envoy(**changes: object) -> Route:
    arms = (Arm("baseline", SMALL, 0), Arm("canary", LARGE, 10_000))
    return replace(Route(CODE, arms, envoy_splits=True), **changes)  # type: ignore[arg-type]


def test_what_envoy_splits_is_written_for_the_arm_of_the_files_weights() -> None:
    decision = decided(Verdict("code"), by_envoy())
    assert (decision.target, decision.arm, decision.envoy_splits) == (LARGE, "canary", True)
    assert decision.cluster == "arch-arm/code/canary"


def test_what_some_arm_cannot_serve_is_not_left_to_envoy() -> None:
    blind = Target("openai/blind", "blind", "openai", supports=Supports(images=False))
    route = by_envoy(arms=(Arm("baseline", blind, 0), Arm("canary", LARGE, 10_000)))
    assert decided(Verdict("code"), route).envoy_splits
    decision = decided(Verdict("code"), route, call=a_call(has_images=True))
    assert (decision.target, decision.envoy_splits, decision.chain) == (LARGE, False, None)


def test_a_target_that_cannot_serve_the_call_is_passed_over_and_decides_no_arm() -> None:
    deaf = Target("openai/deaf", "deaf", "openai", supports=Supports(tools=False))
    route = Route(CODE, (Arm("baseline", deaf, 10_000),), fallbacks=(LARGE, SMALL))
    decision = decided(Verdict("code"), route, call=a_call(has_tools=True))
    assert (decision.target, decision.reason, decision.arm) == (LARGE, Reason.POLICY, None)
    assert decision.chain == chain_of((LARGE, SMALL), Retry())


def test_a_call_that_one_arm_could_not_serve_counts_for_none() -> None:
    blind = Target("openai/blind", "blind", "openai", supports=Supports(images=False))
    shadows = (Shadow(blind, 10_000),)
    split = (Arm("baseline", LARGE, 5_000), Arm("canary", blind, 5_000))
    for fallbacks in ((), (SMALL,)):
        route = Route(CODE, split, shadows, fallbacks)
        for pin in map(str, range(20)):
            text = decided(Verdict("code"), route, pin=pin)
            image = decided(Verdict("code"), route, pin=pin, call=a_call(has_images=True))
            assert (text.arm, text.shadow) == ("baseline" if text.target is LARGE else "canary", shadows[0])
            assert (image.arm, image.shadow) == (None, None)


def test_when_none_can_serve_the_call_the_policys_first_target_says_so() -> None:
    deaf = Target("openai/deaf", "deaf", "openai", supports=Supports(tools=False))
    route = Route(CODE, (Arm("baseline", deaf, 10_000),))
    decision = decided(Verdict("code"), route, call=a_call(has_tools=True))
    assert (decision.target, decision.reason, decision.chain) == (deaf, Reason.NO_CAPABLE_TARGET, None)
    assert not decision.reason.is_fallback


def test_a_request_may_not_name_a_chain_that_envoy_has_no_cluster_for() -> None:
    mine = InlinePolicy(Policy("mine", "m"), ("small", "large"))
    for routes, chain in (
        ([], None),
        (
            [Route(CODE, (Arm("baseline", SMALL, 10_000),), fallbacks=(LARGE,))],
            chain_of((SMALL, LARGE), Retry()),
        ),
    ):
        snapshot = replace(a_snapshot(), chains=chains_of(routes))
        question = settle_or_ask(snapshot, a_call(inline_policies=(mine,)))
        assert isinstance(question, Question)
        assert decide(snapshot, question, Verdict("mine"), Caller()).chain == chain


CANARY = (Arm("baseline", SMALL, 10_000), Arm("canary", LARGE, 0))
FULL = (Arm("baseline", SMALL, 0), Arm("canary", LARGE, 10_000))


@pytest.mark.parametrize(
    ("changes", "caller", "user", "arm"),
    [
        ({}, Caller("r", "k"), None, "baseline"),
        ({}, Caller("r", "k", arm="canary"), None, "canary"),
        ({}, Caller("r", "k", arm="canary-7"), None, "baseline"),
        ({"always": frozenset({"k"})}, Caller("r", "k"), None, "canary"),
        ({"always": frozenset({"u"})}, Caller("r", "k"), "u", "canary"),
        ({"always": frozenset({"k"})}, Caller("r", None), None, "baseline"),
        ({"arms": FULL, "never": frozenset({"u"})}, Caller("r", "k"), "u", "baseline"),
        ({"never": frozenset({"k"}), "always": frozenset({"k"})}, Caller("r", "k"), None, "baseline"),
        ({"never": frozenset({"k"})}, Caller("r", "k", arm="canary"), None, "canary"),
    ],
)
def test_testers_and_listed_ids_get_their_arm_whatever_the_weights(
    changes: dict[str, object], caller: Caller, user: str | None, arm: str
) -> None:
    route = replace(Route(CODE, CANARY), **changes)  # type: ignore[arg-type]
    snapshot = a_snapshot(route)
    question = Question(a_call(user_id=user), snapshot.policies, snapshot.routes)
    assert decide(snapshot, question, Verdict("code"), caller).arm == arm


def test_who_did_not_come_by_chance_is_neither_copied_nor_observed_nor_left_to_envoy() -> None:
    route = Route(CODE, CANARY, (Shadow(SMALL, 10_000),), observed=True, envoy_splits=True)
    by_chance = decided(Verdict("code"), route)
    assert (by_chance.observed, by_chance.envoy_splits) == (True, True)
    assert by_chance.shadow is not None
    assigned = decided(Verdict("code"), replace(route, always=frozenset({"k"})))
    assert (assigned.arm, assigned.observed, assigned.envoy_splits) == ("canary", False, False)
    assert assigned.shadow is None


def test_what_is_sticky_is_the_session_the_user_or_nothing() -> None:
    call = a_call(conversation_id="c", user_id="u")
    caller = Caller("r", "p")
    keys = {sticky: session_key(call, caller, sticky) for sticky in Sticky}
    assert keys == {Sticky.SESSION: b"pin:p", Sticky.USER: b"user:u", Sticky.REQUEST: b"request:r"}
    assert session_key(a_call(), caller, Sticky.USER) == b"pin:p"


def test_only_the_testers_key_opens_an_arm() -> None:
    key = Secret("the-key-of-testers")
    assert arm_of_tester(key, "the-key-of-testers", "canary") == "canary"
    assert arm_of_tester(key, "the-key-of-testers", "") is None
    for wrong in ("", "the-key-of-tester", "the-key-of-testers ", "schlüssel", "\ud800"):
        assert arm_of_tester(key, wrong, "canary") is None
    assert arm_of_tester(None, "", "canary") is None
