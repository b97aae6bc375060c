"""What decisions need of Envoy's configuration, and what is decided for an Envoy that does not have it yet.

The file is read by two: the server, which takes a new one at once, and Envoy, whose clusters and routes were
rendered from an earlier one. A request sent to a cluster that Envoy lacks gets 503. So Envoy says what it
has, in the metadata of each stream, and what it lacks is left out of its decisions until it has it. A cluster
of other hosts is another one: the key that is meant for the new hosts must not reach the old.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b

from ext_proc.core.failover import chain_of_arm
from ext_proc.core.rewrite import AUTH_HEADERS
from ext_proc.core.split import laid_out
from ext_proc.core.types import WHOLE_PER_10K, Arm, Chain, Route, Shadow, Snapshot, Target, copies_cluster

MAX_TOLD = 4096
"""Of what Envoy says, in bytes: some 580 marks. Of more it says one for each of 64 groups."""

_IN_GROUPS = "in-groups"

Has = frozenset[str]
"""Marks of what an Envoy has."""


def mark_of(name: str, *origins: str | None) -> str:
    """A short name that is the same everywhere, for a cluster or a split and where its hosts are: 36 bits."""
    digest = blake2b("\n".join((name, *map(str, origins))).encode(), digest_size=6).digest()
    return urlsafe_b64encode(digest).decode()[:6]


def needed(snapshot: Snapshot) -> dict[str, str]:
    """What an Envoy must have for every decision: for people, by mark."""
    found: dict[str, str] = {}
    for target in snapshot.targets.values():
        found |= _needed_for(target)
    for chain in snapshot.chains.values():
        found[_chain_mark(chain)] = chain.cluster
    for route in snapshot.routes.values():
        for shadow in route.shadows:
            found |= {_copies_mark(each): copies_cluster(each) for each in _copied_to(route, shadow)}
        if route.envoy_splits:
            found[_split_mark(route)] = _split(route)
    return found


def told(snapshot: Snapshot) -> str:
    """What an Envoy rendered from this says that it has."""
    marks = needed(snapshot)
    text = " ".join(sorted(marks))
    return text if len(text) <= MAX_TOLD else " ".join((_IN_GROUPS, *sorted(_groups(marks))))


def told_of(*targets: Target) -> str:
    """What an upstream filter says for the targets that it makes requests fit for."""
    return " ".join(dict.fromkeys(mark for target in targets for mark in _needed_for(target)))


def had(snapshot: Snapshot, text: str) -> Has:
    """What an Envoy has, by what it says, of what is needed. Of a group with anything else in it: nothing."""
    marks, said = needed(snapshot), frozenset(text.split())
    if _IN_GROUPS not in said:
        return said & marks.keys()
    return frozenset(mark for digest, group in _groups(marks).items() if digest in said for mark in group)


def _groups(marks: Mapping[str, str]) -> dict[str, list[str]]:
    """Marks in groups by their names, which stay when hosts change; by a mark of each group."""
    groups: dict[str, list[str]] = {}
    for mark, name in sorted(marks.items()):
        groups.setdefault(mark_of(name)[0], []).append(mark)
    return {mark_of(group, *found): found for group, found in groups.items()}


def is_same_place(one: Target, other: Target) -> bool:
    """Whether an Envoy that reaches the one reaches the other."""
    return _needed_for(one) == _needed_for(other)


def without(snapshot: Snapshot, has: Has) -> Snapshot | None:
    """The snapshot as an Envoy can follow it that has only this; None where it reaches no target of it.

    A canary it lacks gets nobody, and its sessions the baseline; a policy whose first target it lacks goes to
    the next of its targets, or else to the default, unobserved, because nobody's evidence it would be.
    """
    targets = _reached(snapshot.targets, has)
    ranked = (snapshot.default, snapshot.on_failure, *targets.values())
    default = next((target for target in ranked if reaches(has, target)), None)
    if default is None:
        return None
    on_failure = snapshot.on_failure if reaches(has, snapshot.on_failure) else default
    return replace(
        snapshot,
        targets=targets,
        models=_reached(snapshot.models, has),
        aliases=_reached(snapshot.aliases, has),
        default=default,
        on_failure=on_failure,
        routes={name: _followed(route, default, has) for name, route in snapshot.routes.items()},
        chains={name: chain for name, chain in snapshot.chains.items() if _chain_mark(chain) in has},
    )


def _followed(route: Route, default: Target, has: Has) -> Route:
    fallbacks = tuple(target for target in route.fallbacks if reaches(has, target))
    baseline, *canaries = route.arms
    kept = [arm for arm in canaries if reaches(has, arm.target)]
    if not reaches(has, baseline.target):
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
        envoy_splits=route.envoy_splits and _split_mark(route) in has,
    )
    return route


def _copied(route: Route, has: Has) -> Iterator[Shadow]:
    for shadow in route.shadows:
        if _copies_mark(shadow.target) in has and reaches(has, shadow.target):
            all_of_them = all(_copies_mark(target) in has for target in _copied_to(route, shadow))
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


def _split_mark(route: Route) -> str:
    chains = [chain_of_arm(route, arm) for arm in route.arms]
    return mark_of(_split(route), *(target.origin for chain in chains for target in chain.targets))


def _chain_mark(chain: Chain) -> str:
    return mark_of(chain.cluster, *(target.origin for target in chain.targets))


def _copies_mark(target: Target) -> str:
    return mark_of(copies_cluster(target), target.origin)


def _needed_for(target: Target) -> dict[str, str]:
    """Its cluster, unless only the mesh knows its hosts; its key's header, if it is one of the file's own."""
    found = {mark_of(target.cluster, target.origin): target.cluster} if target.has_address else {}
    if target.credential is not None and target.credential.header not in AUTH_HEADERS:
        name = f"header {target.credential.header}"
        found[mark_of(name)] = name
    return found


def reaches(has: Has, target: Target) -> bool:
    """Whether an Envoy that has this reaches a target, and lets its key through."""
    return has.issuperset(_needed_for(target))


def _reached(targets: Mapping[str, Target], has: Has) -> dict[str, Target]:
    return {name: target for name, target in targets.items() if reaches(has, target)}
