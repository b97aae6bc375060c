"""The observe role and the answers of copies: protobuf in, observations out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import brotli
import grpc
import orjson
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from ext_proc.core.copying import CopyBounds
from ext_proc.core.observation import Observation, Role
from ext_proc.core.reading import STEP_BYTES
from ext_proc.core.settings import ComparisonSettings, JudgeSettings
from ext_proc.core.types import Message, Policy, Verdict
from ext_proc.core.watching import Answer
from ext_proc.server.observing import Observing
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry
from tests.support.answers import CHAT, CHAT_EVENTS, EVENTS, JSON, chunk, sse
from tests.support.builders import a_route, a_shadow, a_snapshot, a_target

SHADOW = a_target("next/model", authority="next", path_prefix="/v1")
SNAPSHOT = a_snapshot(routes=(a_route(a_target("openai/large"), shadows=(a_shadow(SHADOW),)),))
JUDGE = JudgeSettings("http://judge/v1/chat/completions", "j", None, 1.0, 1, 10_000)
OBSERVE = (("x-arch-role", "observe"),)
COPY = (("x-arch-role", "shadow"), ("x-arch-target", "next/model"))
ASKED = {
    "x-request-id": "id",
    "x-arch-observe": "pair",
    "x-arch-policy": "coding",
    "x-arch-model": "openai/large",
    "x-arch-arm": "baseline",
    "x-arch-bucket": "17",
}


class FakeAsker:
    async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        raise AssertionError(messages, policies)


class Sink:
    """Keeps what it is told; fails when told to."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []
        self.answers: list[Answer] = []
        self.broken = False

    def observed(self, observation: Observation) -> None:
        if self.broken:
            raise ZeroDivisionError
        self.observations.append(observation)

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)


class FakeContext:
    def __init__(self, messages: list[Any], metadata: tuple[tuple[str, str], ...]) -> None:
        self._messages = messages
        self._metadata = metadata
        self.written: list[Any] = []

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def read(self) -> Any:
        return self._messages.pop(0) if self._messages else grpc.aio.EOF

    async def write(self, data: bytes) -> None:
        self.written.append(pb.ProcessingResponse.FromString(data))


def message(
    part: str, headers: Mapping[str, str] | None = None, body: bytes | None = None, end: bool = False
) -> Any:
    sent = pb.ProcessingRequest()
    field = getattr(sent, part)
    for key, value in (headers or {}).items():
        field.headers.headers.add(key=key, raw_value=value.encode())
    if body is not None:
        field.body = body
    field.end_of_stream = end
    return sent


def answer_to(body: bytes, content_type: str = JSON, **headers: str) -> list[Any]:
    values = {
        ":status": "200",
        "content-type": content_type,
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    return [
        message("response_headers", values),
        *(message("response_body", body=piece) for piece in pieces),
        message("response_body", body=b"", end=True),
    ]


async def served(
    messages: list[Any],
    metadata: tuple[tuple[str, str], ...],
    sink: Sink,
    bounds: CopyBounds | None = None,
    comparison: ComparisonSettings = ComparisonSettings(judge=JUDGE),  # noqa: B008
) -> tuple[list[Any], Telemetry]:
    telemetry = Telemetry()
    observing = Observing(telemetry, [sink], sink)
    live = Live(SNAPSHOT, FakeAsker(), 1 << 20, comparison)
    context = FakeContext(messages, metadata)
    await Servicer(lambda: live, telemetry, observing, bounds).process(None, context)
    return context.written, telemetry


@pytest.mark.parametrize(("body", "kind"), [(orjson.dumps(CHAT), JSON), (sse(*CHAT_EVENTS), EVENTS)])
async def test_a_primary_answer_is_observed_and_nothing_is_answered(body: bytes, kind: str) -> None:
    sink = Sink()
    written, _ = await served([message("request_headers", ASKED), *answer_to(body, kind)], OBSERVE, sink)
    assert written == []
    (seen,) = sink.observations
    assert (seen.request_id, seen.policy, seen.arm, seen.target) == (
        "id",
        "coding",
        "baseline",
        "openai/large",
    )
    assert (seen.role, seen.status, seen.bucket) == (Role.PRIMARY, 200, 17)
    assert (seen.tokens_in, seen.tokens_out) == (11, 7)
    (answer,) = sink.answers
    assert answer.reply is None  # no copy was made, so nobody will compare it


async def test_a_primary_that_was_copied_keeps_its_contents_for_the_comparison() -> None:
    sink = Sink()
    asked = {**ASKED, "x-arch-shadow": "arch-shadow/next/model", "x-arch-noise": "arch-shadow/openai/large"}
    await served([message("request_headers", asked), *answer_to(orjson.dumps(CHAT))], OBSERVE, sink)
    (answer,) = sink.answers
    assert (answer.subject.pair, answer.subject.copies) == ("pair", 2)
    assert answer.reply is not None
    assert answer.reply.text == "It rains."


async def test_a_client_that_left_before_the_answer_is_counted_and_no_answer() -> None:
    sink = Sink()
    _, telemetry = await served([message("request_headers", ASKED)], OBSERVE, sink)
    (left,) = sink.observations
    assert (left.policy, left.arm, left.target, left.bucket) == ("coding", "baseline", "openai/large", 17)
    assert (left.is_unanswered, left.is_error, left.first_choice_failed) == (True, False, None)
    assert sink.answers == []
    telemetry.answers.observed(left)
    labels = {"policy": "coding", "model": "openai/large", "arm": "baseline"}
    assert telemetry.registry.get_sample_value("arch_ext_proc_requests_left_total", labels) == 1
    assert "arch_ext_proc_answers_total{" not in telemetry.exposition().decode()


@pytest.mark.parametrize("metadata", [OBSERVE, COPY])
async def test_reading_an_answer_leaves_turns_to_others(metadata: tuple[tuple[str, str], ...]) -> None:
    sink, turns = Sink(), 0
    body = sse(chunk(content="x")) * 20_000 + sse(*CHAT_EVENTS)
    asked = {":method": "POST", ":path": "/v1/chat/completions", **ASKED, "x-arch-model": "openai/large"}
    messages = [
        message("request_headers", asked),
        message("request_body", body=b"{}", end=True),
        message("response_headers", {":status": "200", "content-type": EVENTS}),
        message("response_body", body=body, end=True),
    ]

    async def take_turns() -> None:
        nonlocal turns
        while not sink.observations:
            turns += 1
            await asyncio.sleep(0)

    await asyncio.gather(take_turns(), served(messages, metadata, sink))
    assert sink.observations[0].tokens_out == 7
    assert turns >= len(body) // (2 * STEP_BYTES)


async def test_an_answer_that_is_not_read_is_counted() -> None:
    telemetry = Telemetry()
    whose = {"policy": "coding", "model": "openai/large", "role": "primary"}
    bomb = brotli.compress(b"data: {}\n\n" * 1_000_000, quality=5)
    answer = answer_to(bomb, EVENTS, content_encoding="br")
    observing = Observing(telemetry, [telemetry.answers])
    live = Live(SNAPSHOT, FakeAsker(), 1 << 20)
    context = FakeContext([message("request_headers", ASKED), *answer], OBSERVE)
    await Servicer(lambda: live, telemetry, observing).process(None, context)
    get = telemetry.registry.get_sample_value
    assert get("arch_ext_proc_answers_unread_total", whose) == 1
    assert get("arch_ext_proc_answer_errors_total", {**whose, "arm": "baseline"}) is None


async def test_a_primary_that_stops_early_is_cut() -> None:
    sink = Sink()
    await served(
        [message("request_headers", ASKED), *answer_to(sse(*CHAT_EVENTS), EVENTS)[:4]], OBSERVE, sink
    )
    assert [(seen.cut, seen.is_error) for seen in sink.observations] == [(True, False)]


@pytest.mark.parametrize("model", ["openai/large", "next/model"])
async def test_a_copys_answer_is_acknowledged_part_by_part_and_observed(model: str) -> None:
    sink, bounds = Sink(), CopyBounds()
    bounds.admit("coding", a_shadow(SHADOW), [("pair", "next/model")], 1, 0.0)
    asked = {":method": "POST", ":path": "/v9/chat/completions", **ASKED, "x-arch-model": model}
    question = orjson.dumps({"model": "x", "messages": [{"role": "user", "content": "Does it rain?"}]})
    parts = answer_to(orjson.dumps(CHAT))
    request = [message("request_headers", asked), message("request_body", body=question, end=True)]
    written, _ = await served([*request, *parts], COPY, sink, bounds)
    kinds = [answer.WhichOneof("response") for answer in written]
    assert kinds == [
        "request_headers",
        "request_body",
        "response_headers",
        *["response_body"] * (len(parts) - 1),
    ]
    (answer,) = sink.answers
    assert answer.observation.target == "next/model"
    assert answer.observation.role is (Role.NOISE if model == "next/model" else Role.SHADOW)
    assert answer.question == "user: Does it rain?"
    assert answer.reply is not None
    assert bounds.on_their_way(0.0) == 0


async def test_a_copy_without_an_answer_frees_its_slot_and_is_an_error() -> None:
    sink, bounds = Sink(), CopyBounds()
    bounds.admit("coding", a_shadow(SHADOW), [("pair", "next/model")], 1, 0.0)
    asked = {":path": "/v1/chat/completions", **ASKED}
    request = [message("request_headers", asked), message("request_body", body=b'{"messages": []}', end=True)]
    await served(request, COPY, sink, bounds, ComparisonSettings())
    assert [(seen.status, seen.is_error) for seen in sink.observations] == [(0, True)]
    assert sink.answers[0].question is None
    assert bounds.on_their_way(0.0) == 0


async def test_a_copy_that_is_dropped_frees_its_slot_and_is_no_answer() -> None:
    sink, bounds = Sink(), CopyBounds()
    bounds.admit("coding", a_shadow(SHADOW), [("pair", "next/model")], 1, 0.0)
    request = [message("request_headers", ASKED), message("request_body", body=b"{bad", end=True)]
    await served(request, COPY, sink, bounds)
    assert sink.observations == []
    assert bounds.on_their_way(0.0) == 0


async def test_a_sink_that_fails_is_a_bug_and_no_more() -> None:
    sink = Sink()
    sink.broken = True
    messages = [message("request_headers", ASKED), *answer_to(orjson.dumps(CHAT))]
    _, telemetry = await served(messages, OBSERVE, sink)
    assert telemetry.registry.get_sample_value("arch_ext_proc_stream_errors_total", {"kind": "bug"}) == 1


async def test_messages_that_make_no_sense_are_survived() -> None:
    sink = Sink()
    odd = [
        message("response_body", body=b"x"),
        pb.ProcessingRequest(),
        message("response_headers", {":status": "²"}),
    ]
    await served(odd, OBSERVE, sink)
    assert sink.observations == []
