"""Ranked targets to chains: who may follow whom, and which chains there are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ext_proc.core.failover import capable, chain_of, chains_of, needs_of
from ext_proc.core.types import (
    Arm,
    Dialect,
    LlmCall,
    Message,
    Needs,
    Policy,
    Retry,
    Route,
    Supports,
    Target,
)

A, B, C = (Target(f"p/{name}", name, name) for name in "abc")
RETRY = Retry()
NEEDS = Needs(Dialect.CHAT_COMPLETIONS)


def arm(target: Target) -> Arm:
    return Arm("baseline", target, 10_000)


def test_a_chain_holds_the_targets_in_order() -> None:
    chain = chain_of((A, B, C), RETRY)
    assert chain is not None
    assert chain.targets == (A, B, C)
    assert chain.cluster.startswith("arch-failover/p/a/")


def test_targets_their_order_and_the_settings_each_change_the_cluster() -> None:
    ways = [
        ((A, B), RETRY),
        ((B, A), RETRY),
        ((A, B, C), RETRY),
        ((A, B), replace(RETRY, statuses=(429, 401))),
        ((A, B), replace(RETRY, server_errors=False)),
        ((A, B), replace(RETRY, per_try_timeout_s=1.0)),
        ((A, B), replace(RETRY, ejection_failures=1)),
        ((A, B), replace(RETRY, ejection_s=1.0)),
    ]
    clusters = {chain.cluster for way in ways if (chain := chain_of(*way))}
    assert len(clusters) == len(ways)
    assert chain_of((A, B), RETRY) == chain_of((A, B), Retry())


@pytest.mark.parametrize(
    "ranked",
    [
        (),
        (A,),
        (replace(A, has_address=False), B),
        (A, replace(B, has_address=False)),
        (A, replace(B, passthrough_auth=True)),
    ],
)
def test_nobody_follows_where_envoy_cannot_go_on(ranked: tuple[Target, ...]) -> None:
    assert chain_of(ranked, RETRY) is None


def test_a_target_that_passes_on_the_clients_key_may_be_first() -> None:
    first = replace(A, passthrough_auth=True)
    chain = chain_of((first, replace(B, has_address=False), C), RETRY)
    assert chain is not None
    assert chain.targets == (first, C)


def test_no_more_targets_than_attempts() -> None:
    chain = chain_of((A, B, C), replace(RETRY, attempts=2))
    assert chain is not None
    assert chain.targets == (A, B)
    assert chain_of((A, B), replace(RETRY, attempts=1)) is None


@pytest.mark.parametrize(
    ("supports", "needs", "serves"),
    [
        (Supports(), Needs(Dialect.RESPONSES, True, True, 1 << 30), True),
        (Supports(dialects=frozenset({Dialect.MESSAGES})), NEEDS, False),
        (Supports(dialects=frozenset({Dialect.CHAT_COMPLETIONS})), NEEDS, True),
        (Supports(images=False), replace(NEEDS, images=True), False),
        (Supports(images=False), replace(NEEDS, tools=True), True),
        (Supports(tools=False), replace(NEEDS, tools=True), False),
        (Supports(context_tokens=100), replace(NEEDS, tokens=100), True),
        (Supports(context_tokens=100), replace(NEEDS, tokens=101), False),
    ],
)
def test_what_is_declared_decides_who_is_capable(supports: Supports, needs: Needs, serves: bool) -> None:
    limited = replace(A, supports=supports)
    assert capable(arm(limited), (B,), needs) == ((limited, B) if serves else (B,))


def test_an_arm_may_be_among_the_fallbacks() -> None:
    assert capable(arm(B), (A, B, C), NEEDS) == (B, A, C)


def test_tokens_are_those_of_the_texts_and_of_the_answer() -> None:
    call = LlmCall(
        Dialect.MESSAGES, "m", (Message("user", "x" * 40), Message("user", "字" * 4)), max_tokens=7
    )
    assert needs_of(call) == Needs(Dialect.MESSAGES, tokens=(40 + 12) // 4 + 7)


def test_nothing_declared_means_one_chain_for_a_list_and_policies_share_it() -> None:
    routes = [Route(Policy(name, "d"), (arm(A),), fallbacks=(B, C)) for name in ("one", "two")]
    assert [chain.targets for chain in chains_of(routes).values()] == [(A, B, C)]


def test_declarations_cost_a_chain_only_where_they_make_a_difference() -> None:
    blind = replace(B, supports=Supports(images=False))
    chains = chains_of([Route(Policy("p", "d"), (arm(A),), fallbacks=(blind, C))]).values()
    assert {chain.targets for chain in chains} == {(A, blind, C), (A, C)}


def test_one_arm_is_never_another_ones_fallback_unless_it_is_written_so() -> None:
    route = Route(Policy("p", "d"), (arm(A), Arm("canary", B, 0)), fallbacks=(C,))
    assert {chain.targets for chain in chains_of([route]).values()} == {(A, C), (B, C)}
