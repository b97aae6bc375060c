"""What is decided for an Envoy that was rendered from another file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ext_proc.core.envoy_side import MAX_TOLD, mark_of, needed, told, without
from ext_proc.core.failover import chains_of
from ext_proc.core.types import Arm, Credential, Policy, Route, Secret, Shadow, Snapshot, Target

BASE = Target("openai/base", "base", "base")
OLD = Target("vllm/old", "old", "old")
NEW = Target("vllm/new", "new", "new")
POLICY = Policy("code", "writing code")


def a_snapshot(route: Route, default: Target = BASE) -> Snapshot:
    targets = {target.name: target for target in (BASE, OLD, NEW)}
    return Snapshot(
        "r",
        (POLICY,),
        {"code": route},
        targets,
        {"new": NEW},
        {"fresh": NEW},
        default,
        default,
        b"",
        chains_of([route]),
    )


def a_route(*arms: tuple[Target, int], **fields: object) -> Route:
    names = ("baseline", "canary", "canary-2")
    made = tuple(Arm(name, target, weight) for name, (target, weight) in zip(names, arms, strict=False))
    return replace(Route(POLICY, made, observed=True), **fields)  # type: ignore[arg-type]


def had(snapshot: Snapshot, *lacking: str) -> frozenset[str]:
    return frozenset(needed(snapshot)) - {mark_of(name) for name in lacking}


def test_an_envoy_of_the_same_file_lacks_nothing() -> None:
    snapshot = a_snapshot(a_route((OLD, 9_000), (NEW, 1_000), fallbacks=(BASE,)))
    text = told(snapshot)
    assert text is not None
    assert frozenset(text.split()) == frozenset(needed(snapshot))
    assert without(snapshot, frozenset(text.split())) == snapshot


def test_a_canary_that_envoy_lacks_gets_nobody() -> None:
    snapshot = a_snapshot(a_route((OLD, 9_000), (NEW, 1_000), always=frozenset({"ada"})))
    seen = without(snapshot, had(snapshot, "new"))
    route = seen.routes["code"]
    assert route.arms == (Arm("baseline", OLD, 10_000),)
    assert route.always == frozenset()
    assert route.observed
    assert "vllm/new" not in seen.targets
    assert (seen.models, seen.aliases) == ({}, {})


@pytest.mark.parametrize(
    ("route", "stands_in"),
    [
        (a_route((NEW, 9_000), (OLD, 1_000)), OLD),
        (a_route((NEW, 10_000), fallbacks=(OLD,)), OLD),
        (a_route((NEW, 10_000)), BASE),
    ],
)
def test_a_policy_whose_first_target_envoy_lacks_goes_elsewhere_unobserved(
    route: Route, stands_in: Target
) -> None:
    snapshot = a_snapshot(route)
    seen = without(snapshot, had(snapshot, "new")).routes["code"]
    assert [(arm.target, arm.weight_per_10k) for arm in seen.arms] == [(stands_in, 10_000)]
    assert not seen.observed


def test_a_default_that_envoy_lacks_is_another_it_has() -> None:
    snapshot = a_snapshot(a_route((OLD, 10_000)), default=NEW)
    seen = without(snapshot, had(snapshot, "new"))
    assert (seen.default, seen.on_failure) == (BASE, BASE)


def test_an_envoy_of_a_strangers_file_is_left_alone() -> None:
    snapshot = a_snapshot(a_route((OLD, 10_000)))
    assert without(snapshot, frozenset({"ffffff"})) is snapshot


def test_a_chain_that_envoy_lacks_is_not_used() -> None:
    snapshot = a_snapshot(a_route((OLD, 10_000), fallbacks=(BASE,)))
    (chain,) = snapshot.chains
    seen = without(snapshot, had(snapshot, chain))
    assert seen.chains == {}
    assert seen.routes == snapshot.routes


def test_copies_that_envoy_cannot_make_are_not_decided() -> None:
    shadows = (Shadow(NEW, 1_000, noise_floor=True),)
    snapshot = a_snapshot(a_route((OLD, 10_000), shadows=shadows))
    assert without(snapshot, had(snapshot, "arch-shadow/vllm/new")).routes["code"].shadows == ()
    (shadow,) = without(snapshot, had(snapshot, "arch-shadow/vllm/old")).routes["code"].shadows
    assert not shadow.noise_floor


def test_a_split_that_envoy_holds_otherwise_is_the_servers_own() -> None:
    before = a_snapshot(a_route((OLD, 9_000), (NEW, 1_000), envoy_splits=True))
    moved = a_snapshot(a_route((OLD, 5_000), (NEW, 5_000), envoy_splits=True))
    turned = a_snapshot(a_route((NEW, 9_000), (OLD, 1_000), envoy_splits=True))
    has = frozenset(needed(before))
    # Weights are Envoy's to hold: it goes on with its own.
    assert without(moved, has).routes["code"].envoy_splits
    assert not without(turned, has).routes["code"].envoy_splits


def test_a_key_in_a_header_that_envoy_does_not_let_through_is_not_used() -> None:
    header = Credential("x-our-own", Secret("key"))
    snapshot = a_snapshot(a_route((replace(OLD, credential=header), 10_000)))
    snapshot = replace(snapshot, targets={**snapshot.targets, OLD.name: replace(OLD, credential=header)})
    assert "header x-our-own" in needed(snapshot).values()
    seen = without(snapshot, had(snapshot, "header x-our-own"))
    assert seen.routes["code"].arms[0].target == BASE


def test_hosts_that_only_the_mesh_knows_are_its_own_matter() -> None:
    snapshot = a_snapshot(a_route((replace(OLD, has_address=False), 10_000)))
    targets = {BASE.name: BASE, OLD.name: replace(OLD, has_address=False)}
    snapshot = replace(snapshot, targets=targets, models={}, aliases={})
    assert "old" not in needed(snapshot).values()
    assert without(snapshot, frozenset(needed(snapshot))) == snapshot


def test_what_is_too_long_is_not_said() -> None:
    many = {str(number): Target(str(number), "m", f"cluster-{number}") for number in range(MAX_TOLD // 7 + 2)}
    assert told(replace(a_snapshot(a_route((OLD, 10_000))), targets=many)) is None
