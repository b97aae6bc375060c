"""What is decided for an Envoy that was rendered from another file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ext_proc.core.envoy_side import MAX_TOLD, had, needed, reaches, told, told_of, without
from ext_proc.core.failover import chains_of
from ext_proc.core.types import Arm, Credential, Policy, Route, Secret, Shadow, Snapshot, Target

BASE = Target("openai/base", "base", "base", origin="https://base:443")
OLD = Target("vllm/old", "old", "old", origin="http://old:1")
NEW = Target("vllm/new", "new", "new", origin="http://new:1")
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


def all_but(snapshot: Snapshot, *lacking: str) -> frozenset[str]:
    return frozenset(mark for mark, name in needed(snapshot).items() if name not in lacking)


def followed(snapshot: Snapshot, has: frozenset[str]) -> Snapshot:
    seen = without(snapshot, has)
    assert seen is not None
    return seen


def moved(snapshot: Snapshot, old: Target, origin: str) -> Snapshot:
    """The same file with a target elsewhere, in the cluster that it had."""
    new = replace(old, origin=origin)

    def swap(target: Target) -> Target:
        return new if target == old else target

    def turn(route: Route) -> Route:
        return replace(
            route,
            arms=tuple(replace(arm, target=swap(arm.target)) for arm in route.arms),
            fallbacks=tuple(map(swap, route.fallbacks)),
            shadows=tuple(replace(shadow, target=swap(shadow.target)) for shadow in route.shadows),
        )

    routes = {name: turn(route) for name, route in snapshot.routes.items()}
    return replace(
        snapshot,
        routes=routes,
        targets={name: swap(target) for name, target in snapshot.targets.items()},
        models={name: swap(target) for name, target in snapshot.models.items()},
        aliases={name: swap(target) for name, target in snapshot.aliases.items()},
        default=swap(snapshot.default),
        on_failure=swap(snapshot.on_failure),
        chains=chains_of(routes.values()),
    )


def test_an_envoy_of_the_same_file_lacks_nothing() -> None:
    snapshot = a_snapshot(a_route((OLD, 9_000), (NEW, 1_000), fallbacks=(BASE,)))
    has = had(snapshot, told(snapshot))
    assert has == frozenset(needed(snapshot))
    assert without(snapshot, has) == snapshot


def test_a_canary_that_envoy_lacks_gets_nobody() -> None:
    snapshot = a_snapshot(a_route((OLD, 9_000), (NEW, 1_000), always=frozenset({"ada"})))
    seen = followed(snapshot, all_but(snapshot, "new"))
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
    seen = followed(snapshot, all_but(snapshot, "new")).routes["code"]
    assert [(arm.target, arm.weight_per_10k) for arm in seen.arms] == [(stands_in, 10_000)]
    assert not seen.observed


def test_a_default_that_envoy_lacks_is_another_it_has() -> None:
    snapshot = a_snapshot(a_route((OLD, 10_000)), default=NEW)
    seen = followed(snapshot, all_but(snapshot, "new"))
    assert (seen.default, seen.on_failure) == (BASE, BASE)


def test_an_envoy_that_reaches_nobody_is_decided_for_by_nobody() -> None:
    assert without(a_snapshot(a_route((OLD, 10_000))), frozenset()) is None


@pytest.mark.parametrize("origin", ["http://elsewhere:1", "http://new:2", "https://new:1"])
def test_a_cluster_of_other_hosts_is_one_that_envoy_lacks(origin: str) -> None:
    shadows = (Shadow(NEW, 10_000),)
    before = a_snapshot(a_route((OLD, 10_000), fallbacks=(NEW,), shadows=shadows, envoy_splits=True))
    now = moved(before, NEW, origin)
    has = had(now, told(before))
    assert sorted(name for mark, name in needed(now).items() if mark not in has) == sorted(
        {
            "new",
            "arch-shadow/vllm/new",
            "split code: baseline=vllm/old,vllm/new",
            *now.chains,
        }
    )
    seen = followed(now, has)
    route = seen.routes["code"]
    assert (route.fallbacks, route.shadows, route.envoy_splits) == ((), (), False)
    assert seen.chains == {}
    assert "vllm/new" not in seen.targets
    assert (seen.models, seen.aliases) == ({}, {})


def test_no_copy_goes_where_its_targets_own_header_is_not_let_through() -> None:
    own = replace(NEW, credential=Credential("x-our-own", Secret("key")))
    snapshot = moved(a_snapshot(a_route((OLD, 10_000), shadows=(Shadow(NEW, 1_000),))), NEW, "http://x:1")
    route = replace(snapshot.routes["code"], shadows=(Shadow(own, 1_000),))
    snapshot = replace(snapshot, routes={"code": route}, targets={**snapshot.targets, own.name: own})
    seen = followed(snapshot, all_but(snapshot, "header x-our-own"))
    assert seen.routes["code"].shadows == ()


def test_what_a_filter_says_of_its_targets_tells_their_hosts() -> None:
    has = frozenset(told_of(OLD, NEW).split())
    assert reaches(has, OLD)
    assert reaches(has, NEW)
    assert not reaches(has, BASE)
    assert not reaches(has, replace(NEW, origin="https://new:1"))


def test_a_chain_that_envoy_lacks_is_not_used() -> None:
    snapshot = a_snapshot(a_route((OLD, 10_000), fallbacks=(BASE,)))
    (chain,) = snapshot.chains
    seen = followed(snapshot, all_but(snapshot, chain))
    assert seen.chains == {}
    assert seen.routes == snapshot.routes


def test_copies_that_envoy_cannot_make_are_not_decided() -> None:
    shadows = (Shadow(NEW, 1_000, noise_floor=True),)
    snapshot = a_snapshot(a_route((OLD, 10_000), shadows=shadows))
    assert followed(snapshot, all_but(snapshot, "arch-shadow/vllm/new")).routes["code"].shadows == ()
    (shadow,) = followed(snapshot, all_but(snapshot, "arch-shadow/vllm/old")).routes["code"].shadows
    assert not shadow.noise_floor


def test_a_split_that_envoy_holds_otherwise_is_the_servers_own() -> None:
    before = a_snapshot(a_route((OLD, 9_000), (NEW, 1_000), envoy_splits=True))
    turned_up = a_snapshot(a_route((OLD, 5_000), (NEW, 5_000), envoy_splits=True))
    turned = a_snapshot(a_route((NEW, 9_000), (OLD, 1_000), envoy_splits=True))
    has = frozenset(needed(before))
    # Weights are Envoy's to hold: it goes on with its own.
    assert followed(turned_up, has).routes["code"].envoy_splits
    assert not followed(turned, has).routes["code"].envoy_splits


def test_a_key_in_a_header_that_envoy_does_not_let_through_is_not_used() -> None:
    header = Credential("x-our-own", Secret("key"))
    snapshot = a_snapshot(a_route((replace(OLD, credential=header), 10_000)))
    snapshot = replace(snapshot, targets={**snapshot.targets, OLD.name: replace(OLD, credential=header)})
    assert "header x-our-own" in needed(snapshot).values()
    seen = followed(snapshot, all_but(snapshot, "header x-our-own"))
    assert seen.routes["code"].arms[0].target == BASE


def test_hosts_that_only_the_mesh_knows_are_its_own_matter() -> None:
    snapshot = a_snapshot(a_route((replace(OLD, has_address=False), 10_000)))
    targets = {BASE.name: BASE, OLD.name: replace(OLD, has_address=False)}
    snapshot = replace(snapshot, targets=targets, models={}, aliases={})
    assert "old" not in needed(snapshot).values()
    assert without(snapshot, frozenset(needed(snapshot))) == snapshot


def test_of_many_clusters_it_says_in_short_whose_groups_are_as_they_were() -> None:
    many = [
        Target(f"p/{n}", "m", f"cluster-{n}", origin=f"http://host-{n}:1") for n in range(MAX_TOLD // 7 + 2)
    ]
    before = replace(a_snapshot(a_route((OLD, 10_000))), targets={each.name: each for each in many})
    text = told(before)
    assert len(text) < 500
    assert had(before, text) == frozenset(needed(before))
    now = moved(before, many[7], "http://elsewhere:1")
    has = had(now, text)
    assert not reaches(has, now.targets["p/7"])
    reached = [target for target in now.targets.values() if reaches(has, target)]
    assert len(reached) > len(many) * 0.9
    # One more provider costs no more than its group.
    added = replace(
        before, targets={**before.targets, "p/new": replace(many[0], name="p/new", cluster="new")}
    )
    assert len(had(added, text)) > len(many) * 0.9
