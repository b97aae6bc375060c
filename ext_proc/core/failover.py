"""Who is tried after whom: a policy's ranked targets to the chains that Envoy has a cluster for.

A chain is known by its content, so the server that decides and the Envoy that was rendered need nothing
but the same file to agree on a cluster's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from hashlib import blake2b
from itertools import product

from ext_proc.core.types import Arm, Chain, Dialect, LlmCall, Needs, Retry, Route, Target

CLUSTER_PREFIX = "arch-failover/"
ARM_PREFIX = "arch-arm/"
_BYTES_PER_TOKEN = 4
"""Of UTF-8: right for English prose, and near enough for scripts of three bytes a character."""


def needs_of(call: LlmCall) -> Needs:
    """What a call needs. The tokens are an estimate: its texts by their length, and its longest answer."""
    text_bytes = sum(_utf8_bytes(message.text) for message in call.messages)
    return Needs(
        call.dialect, call.has_images, call.has_tools, text_bytes // _BYTES_PER_TOKEN + call.max_tokens
    )


def capable(arm: Arm, fallbacks: tuple[Target, ...], needs: Needs) -> tuple[Target, ...]:
    """The targets that may serve a call, best first: the arm's own, then the fallbacks. Maybe none."""
    ranked = dict.fromkeys((arm.target, *fallbacks))
    return tuple(target for target in ranked if target.supports.serves(needs))


def all_capable(route: Route, needs: Needs) -> bool:
    """Whether every target of a route may serve a call."""
    targets = (*(arm.target for arm in route.arms), *route.fallbacks)
    return all(target.supports.serves(needs) for target in targets)


def chain_of(ranked: tuple[Target, ...], retry: Retry) -> Chain | None:
    """The chain that begins with the first of these targets; None when nobody can follow it.

    A target whose hosts only the mesh knows can be in no cluster of ours. One that passes on the client's
    own credential can only be first: by the next attempt that credential is gone.
    """
    if not ranked or not ranked[0].has_address:
        return None
    followers = [target for target in ranked[1:] if can_follow(target)]
    targets = (ranked[0], *followers)[: retry.attempts]
    return Chain(_cluster(targets, retry), targets, retry) if len(targets) > 1 else None


def chain_of_arm(route: Route, arm: Arm) -> Chain:
    """The chain of an arm that Envoy picks: it has a cluster even if nobody follows its target."""
    chain = chain_of(tuple(dict.fromkeys((arm.target, *route.fallbacks))), route.retry)
    targets = chain.targets if chain is not None else (arm.target,)
    return Chain(f"{ARM_PREFIX}{route.policy.name}/{arm.name}", targets, route.retry)


def can_follow(target: Target) -> bool:
    """Whether Envoy may go on to a target after another one failed."""
    return target.has_address and not target.passthrough_auth


def chains_of(routes: Iterable[Route]) -> dict[str, Chain]:
    """Every chain that a decision of these routes can need, by its cluster's name.

    One for each sublist of targets that some call can be left with: few, because only what targets
    declare makes a difference.
    """
    chains: dict[str, Chain] = {}
    for route in routes:
        for arm, needs in product(route.arms, _kinds_of_calls(route)):
            chain = chain_of(capable(arm, route.fallbacks, needs), route.retry)
            if chain is not None:
                chains.setdefault(chain.cluster, chain)
        if route.envoy_splits:
            arms = (chain_of_arm(route, arm) for arm in route.arms)
            chains.update({chain.cluster: chain for chain in arms})
    return chains


def _cluster(targets: tuple[Target, ...], retry: Retry) -> str:
    """The first target's name for people, and a digest of all that the cluster depends on."""
    content = [target.name for target in targets], astuple(retry)
    digest = blake2b(json.dumps(content).encode(), digest_size=4).hexdigest()
    return f"{CLUSTER_PREFIX}{targets[0].name}/{digest}"


def _kinds_of_calls(route: Route) -> Iterator[Needs]:
    """A call of each kind that these targets tell apart."""
    supports = [target.supports for target in (*(arm.target for arm in route.arms), *route.fallbacks)]
    limits = {known.context_tokens for known in supports if known.context_tokens is not None}
    dialects = list(Dialect) if any(known.dialects is not None for known in supports) else [Dialect.MESSAGES]
    images = [False, True] if any(not known.images for known in supports) else [False]
    tools = [False, True] if any(not known.tools for known in supports) else [False]
    tokens = [0, *(limit + 1 for limit in sorted(limits))]
    for kind in product(dialects, images, tools, tokens):
        yield Needs(*kind)


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
