"""A decision to what must change in the request: headers and body bytes, nothing more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import orjson

from ext_proc.core import headers, inline, spans
from ext_proc.core.head import removals
from ext_proc.core.paths import upstream_path
from ext_proc.core.spans import Edit
from ext_proc.core.types import Decision, LlmCall, Retry, Target, copies_cluster

AUTH_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Where clients put their keys. Each is removed before a request goes to a provider, unless that
provider's own key overwrites it or its `passthrough_auth` says that the client's is meant for it."""
_AUTH_HEADERS_BUT = {one: tuple(name for name in AUTH_HEADERS if name != one) for one in AUTH_HEADERS}


@dataclass(frozen=True, slots=True)
class Mutation:
    """What Envoy is told to change. `body` is None when it stays as it is.

    Of a body whose head alone is here, `body` is that head, and `streamed_model` what is to be the model of
    all of it, as it passes. It holds a provider's key and a client's words, so it shows neither.
    """

    set: tuple[tuple[str, bytes], ...] = field(repr=False)
    remove: tuple[str, ...] = ()
    body: bytes | None = field(default=None, repr=False)
    streamed_model: str | None = None


def for_decision(decision: Decision, path: str) -> Mutation:
    """The headers that carry out a decision; the body stays as the client sent it."""
    target = decision.target
    shown = [
        (headers.CLUSTER, decision.cluster),
        (headers.MODEL, target.name),
        (headers.REASON, decision.reason),
    ]
    if decision.policy is not None:
        shown.append((headers.POLICY, decision.policy))
    if decision.arm is not None:
        shown.append((headers.ARM, decision.arm))
    if decision.bucket is not None:
        shown.append((headers.BUCKET, str(decision.bucket)))
    if decision.shadow is not None:
        shown.append((headers.SHADOW, decision.shadow.cluster))
    if decision.envoy_splits and decision.policy is not None:
        shown.append((headers.SPLIT, decision.policy))
    if decision.chain is not None:
        shown.append((headers.WRITTEN_FOR, target.name))
        if len(decision.chain.targets) > 1:
            shown.append((headers.FAILOVER, try_timeout_ms(decision.chain.retry)))
    if decision.noise is not None:
        shown.append((headers.NOISE, copies_cluster(decision.noise)))
    if decision.pair is not None:
        shown.append((headers.OBSERVE, decision.pair))
    provider = for_target(target, path)
    return Mutation((*((name, value.encode()) for name, value in shown), *provider.set), provider.remove)


def try_timeout_ms(retry: Retry) -> str:
    """What `x-arch-failover` says: Envoy has a route for each value."""
    return str(round(retry.per_try_timeout_s * 1000))


def for_target(target: Target, path: str) -> Mutation:
    """The headers that any request to a target needs: host, path and credential."""
    wanted: list[tuple[str, bytes]] = []
    if target.authority is not None:
        wanted.append((":authority", target.authority.encode()))
    target_path = upstream_path(path, target.path_prefix)
    if target_path != path:
        wanted.append((":path", target_path.encode("utf-8", "surrogateescape")))
    if target.passthrough_auth:
        return Mutation(tuple(wanted))
    credential = target.credential
    if credential is None:
        return Mutation(tuple(wanted), AUTH_HEADERS)
    wanted.append((credential.header, credential.value.reveal().encode()))
    return Mutation(tuple(wanted), _AUTH_HEADERS_BUT.get(credential.header, AUTH_HEADERS))


def key_headers(targets: Iterable[Target]) -> frozenset[str]:
    """The headers of these targets' keys that are none of `AUTH_HEADERS`: what is not removed by itself."""
    credentials = [target.credential for target in targets if target.credential is not None]
    return frozenset(credential.header for credential in credentials).difference(AUTH_HEADERS)


def with_body(mutation: Mutation, body: bytes, *, was_encoded: bool) -> Mutation:
    """The same mutation with a new body. Envoy wants its `content-length` exact, or answers 500."""
    length = ("content-length", str(len(body)).encode())
    removed = (*mutation.remove, "content-encoding") if was_encoded else mutation.remove
    return Mutation((*mutation.set, length), removed, body)


def rewrite_body(body: bytes, call: LlmCall, model: str) -> bytes:
    """The body with the target's model in it and without inline policies; else byte for byte the same."""
    if call.inline_policies is not None:
        # First, by itself: what is removed decides whether an inserted member needs a comma.
        body = spans.apply(body, inline.removals(body))
    edits = _model_edits(body, model, call.model)
    return spans.apply(body, edits) if edits else body


def with_head(mutation: Mutation, head: bytes, call: LlmCall, model: str | None) -> Mutation:
    """The same mutation for a body of which only the head is here. `model` None: the body keeps its own.

    Inline policies go as far as they are here.
    """
    edits = removals(head) if call.inline_policies is not None else []
    return replace(mutation, body=spans.apply(head, edits) if edits else None, streamed_model=model)


def set_model(body: bytes, model: str) -> bytes:
    """A JSON object's bytes with `model` as its model, whatever it named before."""
    return spans.apply(body, _model_edits(body, model, None))


def _model_edits(body: bytes, model: str, read: str | None) -> list[Edit]:
    """Every top-level `model` member changes, since providers differ in which of two they believe; a
    body without one gets one. `read` is what a parser took for the model: None if it saw none or did not
    look."""
    named = spans.find_model(body, is_text=read is not None)
    value = orjson.dumps(model)
    if not named:
        return [spans.insertion(body, "model", value)]
    if read == model and len(named) == 1:
        return []
    return [Edit(member.value_start, member.end, value) for member in named]
