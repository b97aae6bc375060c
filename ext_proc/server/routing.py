"""One request from bytes to decision: parse, settle or ask, decide, rewrite."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import monotonic, perf_counter

from ext_proc.core import affinity, encodings, envoy_side, head, parse, rewrite
from ext_proc.core.copying import CopyBounds
from ext_proc.core.decide import Question, decide, question_of, settle_or_ask, stay
from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Decide, RequestHeaders
from ext_proc.core.ports import Asker, Kept, Recorder, Sessions
from ext_proc.core.rewrite import Mutation
from ext_proc.core.settings import BODY_GROWTH_BYTES, ComparisonSettings
from ext_proc.core.types import (
    Caller,
    CopyRefusal,
    Decision,
    LlmCall,
    Outcome,
    Shadow,
    Snapshot,
    Target,
    Verdict,
)
from ext_proc.server.in_use import InUse
from ext_proc.telemetry import log

_COMPARISON = ComparisonSettings()
_MAX_VIEWS = 32
"""Envoys rendered from so many files at once: for one more, the oldest view goes."""


@dataclass(frozen=True, slots=True)
class Live:
    """What a stream takes once and keeps: the configuration in force, and the router that knows it.

    `sessions` None: nothing is remembered of a session. `recorder` None: no decision is written down.
    `in_use` counts the streams that have this asker. `pair_prefix` is how the names begin under which answers
    meet. `gone` has targets of configurations before, which requests that were decided then may still go to,
    and `key_headers` the headers, besides the usual ones, in which requests may carry a provider's key to
    their next target: given those of all configurations before, it has those of this one too.
    `lacks` names what the Envoy lacks that this is made for, and `views` holds what is made for Envoys that
    were seen, by what they say they have: None for this. Without `can_decide` that Envoy reaches nobody.
    `window_bytes` is how much of a streamed body is waited for (None: as much as `body_limit_bytes`).
    """

    snapshot: Snapshot
    asker: Asker
    body_limit_bytes: int
    comparison: ComparisonSettings = _COMPARISON
    sessions: Sessions | None = None
    recorder: Recorder | None = None
    in_use: InUse = field(default_factory=InUse)
    pair_prefix: str = ""
    gone: Mapping[str, Target] = field(default_factory=dict)
    key_headers: frozenset[str] = frozenset()
    lacks: tuple[str, ...] = ()
    can_decide: bool = True
    window_bytes: int | None = None
    views: dict[str, Live | None] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Here, because attempts ask for them with every request.
        found = self.key_headers | rewrite.key_headers(self.snapshot.targets.values())
        object.__setattr__(self, "key_headers", found)

    def target(self, name: str, has: str | None = None) -> Target | None:
        """The target of this name that a request in flight may mean, at the hosts that its Envoy has."""
        found = [targets[name] for targets in (self.snapshot.targets, self.gone) if name in targets]
        if has is not None:
            marks = frozenset(has.split())
            found = [target for target in found if envoy_side.reaches(marks, target)]
        return found[0] if found else None

    def as_seen_by(self, has: str | None) -> Live:
        """This, or what is made of it for an Envoy that has less. `has` is what the Envoy says."""
        if has is None:
            return self
        if has not in self.views:
            if len(self.views) >= _MAX_VIEWS:
                del self.views[next(iter(self.views))]
            self.views[has] = self._view(has)
        return self.views[has] or self

    def _view(self, said: str) -> Live | None:
        has = envoy_side.had(self.snapshot, said)
        lacks = tuple(name for mark, name in envoy_side.needed(self.snapshot).items() if mark not in has)
        if not lacks:
            return None
        log.event(logging.WARNING, "envoy_lacks", names=list(lacks))
        seen = envoy_side.without(self.snapshot, has)
        if seen is None:
            return replace(self, lacks=lacks, can_decide=False)
        return replace(self, snapshot=seen, lacks=lacks)


async def route_request(live: Live, request: Decide, bounds: CopyBounds) -> tuple[Mutation, Outcome]:
    """Decide where one request goes and what must change in it. `bounds` admits copies or does not.

    Errors: none of its own. A body that cannot be read goes unchanged to the default target.
    """
    started = perf_counter()
    verdict, router_s, refused = None, None, None
    if not parse.is_json(request.headers.content_type):
        return fall_back(live, request, Reason.CONTENT_TYPE_UNSUPPORTED, started)
    content = await _unpacked(live, request)
    if isinstance(content, Reason):
        return fall_back(live, request, content, started)
    read = head.read if request.is_head else parse.parse_call
    call = read(request.dialect, content)
    if isinstance(call, Reason):
        return fall_back(live, request, call, started)
    answer = settle_or_ask(live.snapshot, call)
    if isinstance(answer, Question) or answer.reason is Reason.NO_CONVERSATION:
        caller = _caller(live.snapshot, request.headers)
        decision, verdict, router_s = await _decided(live, answer, call, caller)
        answer, refused = _observed(decision, call, request, bounds, live.pair_prefix)
    mutation = _rewritten(request, content, call, answer)
    longest = live.body_limit_bytes + BODY_GROWTH_BYTES
    if mutation.body is not None and len(mutation.body) > longest and not request.is_streamed:
        # Envoy would answer 413: the body names its model a thousand times, or had no room left.
        return fall_back(live, request, Reason.BODY_TOO_LARGE, started)
    return mutation, Outcome(answer, perf_counter() - started, verdict, router_s, refused)


def _rewritten(request: Decide, content: bytes, call: LlmCall, decision: Decision) -> Mutation:
    mutation = rewrite.for_decision(decision, request.headers.path)
    if request.is_head:
        # A model that the head does not tell may still come, and embeddings keep theirs.
        keeps_model = decision.reason is Reason.EMBEDDINGS
        return rewrite.with_head(mutation, content, call, None if keeps_model else decision.target.model)
    body = rewrite.rewrite_body(content, call, decision.target.model)
    # Envoy keeps the body as it is now for every attempt, and one set of headers: of these, the first attempt
    # elsewhere takes out the encoding, so the body must have none by then.
    if body is content and (content is request.body or decision.chain is None):
        return mutation
    return rewrite.with_body(mutation, body, was_encoded=content is not request.body)


def _observed(
    decision: Decision, call: LlmCall, request: Decide, bounds: CopyBounds, prefix: str
) -> tuple[Decision, tuple[Shadow, CopyRefusal] | None]:
    """The decision with a name under which its answers meet, and without copies that may not be made."""
    if not decision.observed:
        return decision, None
    pair = prefix + secrets.token_hex(8)
    decision = replace(decision, pair=pair)
    shadow = decision.shadow
    if shadow is None:
        return decision, None
    if call.is_stateful:
        return replace(decision, shadow=None), (shadow, CopyRefusal.STATEFUL)
    if request.is_head:
        return replace(decision, shadow=None), (shadow, CopyRefusal.BODY)
    targets = [shadow.target, *([decision.noise] if decision.noise else [])]
    copies = [(pair, target.name) for target in targets]
    refusal = bounds.admit(decision.policy or "", shadow, copies, len(request.body), monotonic())
    return (decision, None) if refusal is None else (replace(decision, shadow=None), (shadow, refusal))


async def _decided(
    live: Live, answer: Question | Decision, call: LlmCall, caller: Caller
) -> tuple[Decision, Verdict | None, float | None]:
    """The decision, and what the router said and how long that took, if it was asked."""
    question = answer if isinstance(answer, Question) else question_of(live.snapshot, call)
    keys = affinity.memory_keys(call, caller) if live.sessions else ()
    kept = live.sessions.recall(keys[0]) if live.sessions and keys else None
    stayed = stay(live.snapshot, question, kept, caller)
    if stayed is not None:
        return stayed, None, None
    if isinstance(answer, Decision):
        return answer, None, None
    asked = perf_counter()
    verdict = await live.asker.ask(question.call.messages, question.policies)
    router_s = perf_counter() - asked
    decision = decide(live.snapshot, question, verdict, caller)
    if live.recorder:
        live.recorder.record(question.call, question.policies, verdict, decision, caller)
    if live.sessions and verdict.failure is None:
        for key in keys:
            live.sessions.keep(key, Kept(decision.policy))
    return decision, verdict, router_s


def fall_back(live: Live, request: Decide, reason: Reason, started: float) -> tuple[Mutation, Outcome]:
    """The default target for a request whose body stays as it is."""
    decision = Decision(live.snapshot.default, reason)
    mutation = rewrite.for_decision(decision, request.headers.path)
    return mutation, Outcome(decision, perf_counter() - started)


def _caller(snapshot: Snapshot, given: RequestHeaders) -> Caller:
    arm = affinity.arm_of_tester(snapshot.tester_key, given.try_key, given.try_arm)
    return Caller(given.request_id, given.session_pin, arm)


async def _unpacked(live: Live, request: Decide) -> bytes | Reason:
    encoding = request.headers.content_encoding
    if not encoding or encoding.strip().lower() == "identity":
        return request.body
    if request.is_head:
        return Reason.BODY_TOO_LARGE
    # zlib and its like release the GIL: other requests go on meanwhile.
    return await asyncio.to_thread(encodings.decode, request.body, encoding, live.body_limit_bytes)
