"""What decisions need of Envoy's configuration, and what is decided for an Envoy that does not have it yet.

The file is read by two: the server, which takes a new one at once, and Envoy, whose clusters and routes were
rendered from an earlier one. A request sent to a cluster that Envoy lacks gets 503. So Envoy says what it
has, in the metadata of each stream, and what it lacks is left out of its decisions until it has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b

from ext_proc.core.failover import chain_of_arm
from ext_proc.core.rewrite import AUTH_HEADERS
from ext_proc.core.split import laid_out
from ext_proc.core.types import WHOLE_PER_10K, Arm, Route, Shadow, Snapshot, Target, copies_cluster

MAX_TOLD = 4096
"""Of what Envoy says, in bytes: some 580 names. With more it says nothing, and is taken to have all."""

Has = frozenset[str]
"""Marks of what an Envoy has."""


def mark_of(name: str) -> str:
    """A short name for a cluster's name, or a split's, that is the same everywhere."""
    return blake2b(name.encode(), digest_size=3).hexdigest()


def needed(snapshot: Snapshot) -> dict[str, str]:
    """What an Envoy must have for every decision: for people, by mark."""
    names = [name for target in snapshot.targets.values() for name in _needed_for(target)]
    names += snapshot.chains
    for route in snapshot.routes.values():
        names += [copies_cluster(target) for shadow in route.shadows for target in _copied_to(route, shadow)]
        if route.envoy_splits:
            names.append(_split(route))
    return {mark_of(name): name for name in names}


def told(snapshot: Snapshot) -> str | None:
    """What an Envoy rendered from this says that it has. None: that would be too long."""
    text = " ".join(sorted(needed(snapshot)))
    return text if len(text) <= MAX_TOLD else None


def without(snapshot: Snapshot, has: Has) -> Snapshot:
    """The snapshot as an Envoy can follow it that has only this.

    A canary it lacks gets nobody, and its sessions the baseline; a policy whose first target it lacks goes to
    the next of its targets, or else to the default, unobserved, because nobody's evidence it would be. Where
    it has no provider at all it was rendered from another file, and nothing better can be done.
    """
    targets = {name: target for name, target in snapshot.targets.items() if _reaches(has, target)}
    ranked = (snapshot.default, snapshot.on_failure, *targets.values())
    default = next((target for target in ranked if _reaches(has, target)), None)
    if default is None:
        return snapshot
    on_failure = snapshot.on_failure if _reaches(has, snapshot.on_failure) else default
    return replace(
        snapshot,
        targets=targets,
        models=_reached(snapshot.models, has),
        aliases=_reached(snapshot.aliases, has),
        default=default,
        on_failure=on_failure,
        routes={name: _followed(route, default, has) for name, route in snapshot.routes.items()},
        chains={name: chain for name, chain in snapshot.chains.items() if mark_of(name) in has},
    )


def _followed(route: Route, default: Target, has: Has) -> Route:
    fallbacks = tuple(target for target in route.fallbacks if _reaches(has, target))
    baseline, *canaries = route.arms
    kept = [arm for arm in canaries if _reaches(has, arm.target)]
    if not _reaches(has, baseline.target):
        target = next(iter([*(arm.target for arm in kept), *fallbacks, default]))
        return Route(route.policy, (Arm(baseline.name, target, WHOLE_PER_10K),), fallbacks=fallbacks)
    left = WHOLE_PER_10K - sum(arm.weight_per_10k for arm in kept)
    route = replace(
        route,
        arms=(replace(baseline, weight_per_10k=left), *kept),
        fallbacks=fallbacks,
        shadows=tuple(_copied(route, has)),
        # The ids of this list get the first canary.
        always=route.always if canaries[:1] == kept[:1] else frozenset(),
        envoy_splits=route.envoy_splits and mark_of(_split(route)) in has,
    )
    return route


def _copied(route: Route, has: Has) -> Iterator[Shadow]:
    for shadow in route.shadows:
        if mark_of(shadow.cluster) in has:
            all_of_them = all(mark_of(copies_cluster(target)) in has for target in _copied_to(route, shadow))
            yield replace(shadow, noise_floor=shadow.noise_floor and all_of_them)


def _copied_to(route: Route, shadow: Shadow) -> list[Target]:
    return [shadow.target, *((arm.target for arm in route.arms) if shadow.noise_floor else ())]


def _split(route: Route) -> str:
    """A policy's split as Envoy holds it: which arms, in which order, and who stands for each."""
    arms = [
        f"{arm.name}={','.join(target.name for target in chain_of_arm(route, arm).targets)}"
        for arm in laid_out(route.arms)
    ]
    return f"split {route.policy.name}: {' '.join(arms)}"


def _needed_for(target: Target) -> Iterator[str]:
    """Its cluster, unless only the mesh knows its hosts; its key's header, if it is one of the file's own."""
    if target.has_address:
        yield target.cluster
    if target.credential is not None and target.credential.header not in AUTH_HEADERS:
        yield f"header {target.credential.header}"


def _reaches(has: Has, target: Target) -> bool:
    return all(mark_of(name) in has for name in _needed_for(target))


def _reached(targets: Mapping[str, Target], has: Has) -> dict[str, Target]:
    return {name: target for name, target in targets.items() if _reaches(has, target)}
