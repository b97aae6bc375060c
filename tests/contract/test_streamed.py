"""Bodies in pieces, as real protobuf: the answers that whole bodies get, in Envoy's order, and every byte."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import grpc
import pytest
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.core.inline import removals
from ext_proc.core.spans import apply
from ext_proc.core.splicing import ModelSplice
from ext_proc.core.streaming import PIECE_BYTES
from ext_proc.core.types import Snapshot
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry
from tests.contract.test_process import (
    BODY,
    SNAPSHOT,
    FakeAsker,
    dialogue,
    headers,
    set_headers,
)
from tests.contract.test_process import body as whole

WINDOW = 256
Metadata = tuple[tuple[str, str], ...]


def streamed(message: Any) -> Any:
    """As Envoy begins a stream in this mode."""
    mode = processing_mode_pb2.ProcessingMode.FULL_DUPLEX_STREAMED
    message.protocol_config.request_body_mode = mode
    return message


def piece(data: bytes, *, ends: bool = False) -> Any:
    message = pb.ProcessingRequest()
    message.request_body.body, message.request_body.end_of_stream = data, ends
    return message


def trailers() -> Any:
    message = pb.ProcessingRequest()
    message.request_trailers.SetInParent()
    return message


def in_pieces(data: bytes, *places: int) -> list[Any]:
    """A body cut at these places; Envoy ends one with a message of its own."""
    bounds = [0, *sorted(places), len(data)]
    return [*(piece(data[a:b]) for a, b in pairwise(bounds)), piece(b"", ends=True)]


async def given_back(
    *messages: Any, snapshot: Snapshot = SNAPSHOT, metadata: Metadata = (), telemetry: Telemetry | None = None
) -> list[Any]:
    context = Fed(messages, metadata)
    live = Live(snapshot, FakeAsker(), 1 << 20, window_bytes=WINDOW)
    await Servicer(lambda: live, telemetry or Telemetry()).process(None, context)
    return context.answers


class Fed:
    """Gives messages as they are asked for, then the end; keeps the answers."""

    def __init__(self, messages: Iterable[Any], metadata: Metadata = ()) -> None:
        self._messages = iter(messages)
        self._metadata = metadata
        self.answers: list[Any] = []

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    async def read(self) -> Any:
        return next(self._messages, grpc.aio.EOF)

    async def write(self, data: bytes) -> None:
        self.answers.append(pb.ProcessingResponse.FromString(data))


def body_in(answers: list[Any]) -> bytes:
    """The body that Envoy sends on, of answers that must be pieces, the last of them its end."""
    pieces = [answer.request_body.response.body_mutation.streamed_response for answer in answers]
    assert [sent.end_of_stream for sent in pieces] == [False] * (len(pieces) - 1) + [True]
    return b"".join(sent.body for sent in pieces)


@given(
    st.sampled_from(
        [
            BODY,
            b"",
            b" ",
            b"{}",
            b"{bad",
            b'{"messages":[{"role":"user","content":"x"}],"routing_preferences":[]}',
            BODY.replace(b"pl4nted", b"break"),
            BODY.replace(b'"gpt"', b'"openai/small"'),
        ]
    ),
    st.lists(st.integers(0, len(BODY)), max_size=6),
)
def test_a_body_in_pieces_is_decided_and_rewritten_as_a_whole_one(sent: bytes, places: list[int]) -> None:
    async def both() -> tuple[list[Any], list[Any]]:
        pieces = in_pieces(sent, *(min(place, len(sent)) for place in places))
        return await dialogue(headers(), whole(sent)), await given_back(streamed(headers()), *pieces)

    (_, expected), (first, *rest) = asyncio.run(both())
    common = expected.request_body.response
    assert first.request_headers.response.header_mutation == common.header_mutation
    assert first.request_headers.response.clear_route_cache
    assert first.dynamic_metadata == expected.dynamic_metadata
    assert not first.HasField("mode_override")
    is_changed = common.HasField("body_mutation")
    assert body_in(rest) == (common.body_mutation.body if is_changed else sent)


async def test_headers_get_no_answer_before_the_decision() -> None:
    assert await given_back(streamed(headers()), piece(BODY)) == []


async def test_a_body_with_trailers_ends_with_them() -> None:
    first, middle, last = await given_back(streamed(headers()), piece(BODY[:9]), piece(BODY[9:]), trailers())
    assert set_headers(first.request_headers.response)["x-arch-reason"] == "policy"
    sent = middle.request_body.response.body_mutation.streamed_response
    assert (sent.body, sent.end_of_stream) == (BODY.replace(b'"gpt"', b'"large"'), False)
    assert last == pb.ProcessingResponse(request_trailers=pb.TrailersResponse())


async def test_what_is_no_llm_call_flows_through_with_its_trailers() -> None:
    first, second, third, last = await given_back(
        streamed(headers("PUT", "/files")), piece(b"a"), piece(b"b" * 1_000), trailers()
    )
    assert first == pb.ProcessingResponse(request_headers=pb.HeadersResponse())
    bodies = [answer.request_body.response.body_mutation.streamed_response.body for answer in (second, third)]
    assert bodies == [b"a", b"b" * 1_000]
    assert last.WhichOneof("response") == "request_trailers"


async def test_an_llm_call_that_is_no_json_is_decided_by_its_headers_and_flows_through() -> None:
    first, *rest = await given_back(streamed(headers(content_type="text/plain")), *in_pieces(b"abc" * 500, 7))
    assert set_headers(first.request_headers.response)["x-arch-reason"] == "content_type_unsupported"
    assert not first.HasField("mode_override")
    assert body_in(rest) == b"abc" * 500


async def test_a_request_without_a_body_is_decided_at_once() -> None:
    message = streamed(headers())
    message.request_headers.end_of_stream = True
    (answer,) = await given_back(message)
    assert set_headers(answer.request_headers.response)["x-arch-reason"] == "body_empty"


async def test_the_end_of_a_body_that_comes_twice_counts_once() -> None:
    pieces = in_pieces(BODY)
    answers = await given_back(streamed(headers()), *pieces, pieces[-1], piece(b"again", ends=True))
    assert body_in(answers[1:]) == BODY.replace(b'"gpt"', b'"large"')


LONG = BODY.replace(b"pl4nted", b"pl4nted" * 100)
"""Its model comes after the window."""


async def test_a_body_beyond_the_window_is_decided_by_its_head_and_gets_its_model_as_it_passes() -> None:
    telemetry = Telemetry()
    first, *rest = await given_back(
        streamed(headers()), *in_pieces(LONG, 5, 300, len(LONG) - 4), telemetry=telemetry
    )
    assert set_headers(first.request_headers.response)["x-arch-model"] == "openai/large"
    assert "content-length" not in set_headers(first.request_headers.response)
    assert body_in(rest) == LONG.replace(b'"gpt"', b'"large"')
    assert b"arch_ext_proc_decided_by_head_total 1.0" in telemetry.exposition()


async def test_the_answer_to_a_long_body_does_not_wait_for_its_end() -> None:
    answers = await given_back(streamed(headers()), piece(LONG[:300]))
    assert [answer.WhichOneof("response") for answer in answers][:1] == ["request_headers"]
    sent = b"".join(
        answer.request_body.response.body_mutation.streamed_response.body for answer in answers[1:]
    )
    assert sent == LONG[:300]


async def test_a_long_body_that_names_a_provider_in_its_head_goes_there() -> None:
    pinned = json.dumps(
        {"model": "openai/large", "messages": [{"role": "user", "content": "x" * 900}]}
    ).encode()
    first, *rest = await given_back(streamed(headers()), *in_pieces(pinned, 200))
    assert set_headers(first.request_headers.response)["x-arch-reason"] == "pinned"
    assert body_in(rest) == pinned.replace(b'"openai/large"', b'"large"')


async def test_inline_policies_in_the_head_count_and_do_not_reach_the_provider() -> None:
    policies = [{"name": "code", "description": "code", "models": ["openai/small"]}]
    fields = {
        "routing_preferences": policies,
        "messages": [{"role": "user", "content": "x" * 900}],
        "model": "m",
    }
    sent = json.dumps(fields).encode()
    first, *rest = await given_back(streamed(headers()), *in_pieces(sent, 400))
    changed = set_headers(first.request_headers.response)
    assert (changed["x-arch-policy"], changed["x-arch-model"]) == ("code", "openai/small")
    assert body_in(rest) == apply(sent, removals(sent)).replace(b'"m"', b'"small"')


async def test_a_long_body_that_names_policies_only_beyond_its_head_keeps_them() -> None:
    sent = LONG[:-1] + b',"routing_preferences":[]}'
    first, *rest = await given_back(streamed(headers()), *in_pieces(sent))
    assert set_headers(first.request_headers.response)["x-arch-reason"] == "policy"
    assert body_in(rest) == sent.replace(b'"gpt"', b'"large"')


async def test_a_long_body_of_embeddings_keeps_its_model_wherever_it_is() -> None:
    sent = b'{"input":"' + b"x" * 900 + b'","model":"e-3"}'
    first, *rest = await given_back(streamed(headers(path="/v1/embeddings")), *in_pieces(sent))
    assert set_headers(first.request_headers.response)["x-arch-reason"] == "embeddings"
    assert body_in(rest) == sent


@pytest.mark.parametrize(
    ("sent", "more", "reason"),
    [
        (b"[" + b"1," * 900 + b"1]", {}, "body_unreadable"),
        (b"x" * 900, {"content_encoding": "gzip"}, "body_too_large"),
        (b'{"messages":[{"content":"' + b"x" * 900 + b'","role":"user"}]}', {}, "no_conversation"),
    ],
)
async def test_a_long_body_whose_head_says_nothing_goes_to_the_default(
    sent: bytes, more: dict[str, str], reason: str
) -> None:
    first, *rest = await given_back(streamed(headers(**more)), *in_pieces(sent, 100))
    changed = set_headers(first.request_headers.response)
    assert (changed["x-arch-cluster"], changed["x-arch-reason"]) == ("openai", reason)
    expected = sent[:-1] + b',"model":"small"}' if reason == "no_conversation" else sent
    assert body_in(rest) == expected


async def test_a_bug_costs_no_byte_of_a_long_body() -> None:
    sent = BODY.replace(b'"pl4nted"}', b'"break"}').replace(b'"gpt"', b'"' + b"g" * 900 + b'"')
    first, *rest = await given_back(streamed(headers()), *in_pieces(sent, 400))
    assert set_headers(first.request_headers.response)["x-arch-reason"] == "internal_error"
    assert body_in(rest) == sent


async def test_a_bug_in_what_edits_a_body_on_its_way_costs_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = 0

    def feed(_: ModelSplice, data: bytes) -> bytes:
        nonlocal fed
        fed += 1
        if fed == 3:
            raise ZeroDivisionError
        return data

    monkeypatch.setattr(ModelSplice, "feed", feed)
    _, *rest = await given_back(streamed(headers()), *in_pieces(LONG, 300, 400, 500, 600))
    assert body_in(rest) == LONG
    assert fed == 3


async def test_an_unknown_message_does_not_end_the_stream_which_would_lose_the_body() -> None:
    answers = await given_back(
        streamed(headers()), piece(BODY[:9]), pb.ProcessingRequest(), *in_pieces(BODY[9:])
    )
    assert body_in(answers[1:]) == BODY.replace(b'"gpt"', b'"large"')


async def test_an_answers_parts_are_acknowledged() -> None:
    names = ("response_headers", "response_body", "response_trailers")
    messages = [pb.ProcessingRequest() for _ in names]
    for name, message in zip(names, messages, strict=True):
        getattr(message, name).SetInParent()
    answers = await given_back(streamed(headers("GET", "/")), *messages)
    assert tuple(answer.WhichOneof("response") for answer in answers[1:]) == names


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ((("x-arch-role", "shadow"), ("x-arch-target", "openai/large")), "request_headers"),
        ((("x-arch-role", "shadow"), ("x-arch-target", "nobody")), "immediate_response"),
        ((("x-arch-role", "attempt"),), "immediate_response"),
    ],
)
async def test_other_roles_serve_bodies_in_pieces_too(metadata: Metadata, kind: str) -> None:
    first, *rest = await given_back(streamed(headers()), *in_pieces(BODY, 9), metadata=metadata)
    assert first.WhichOneof("response") == kind
    if kind == "request_headers":
        assert body_in(rest) == BODY.replace(b'"gpt"', b'"large"')
    else:
        assert rest == []


async def test_a_copy_beyond_the_window_is_dropped() -> None:
    role = (("x-arch-role", "shadow"), ("x-arch-target", "openai/large"))
    answers = await given_back(streamed(headers()), *in_pieces(LONG, 300), metadata=role)
    assert [answer.WhichOneof("response") for answer in answers] == ["immediate_response"]


async def test_a_body_of_any_length_passes_in_bounded_memory() -> None:
    window, size = 1 << 18, 40 << 20
    part = b"0123456789abcdef" * 4096

    def messages() -> Iterable[Any]:
        yield streamed(headers())
        yield piece(b'{"messages":[{"role":"user","content":"')
        for _ in range(size // len(part)):
            yield piece(part)
        yield piece(b'"}],"model":"gpt"}')
        yield piece(b"", ends=True)

    class Counting(Fed):
        sent = 0

        async def write(self, data: bytes) -> None:
            answer = pb.ProcessingResponse.FromString(data)
            if answer.WhichOneof("response") == "request_body":
                given = answer.request_body.response.body_mutation.streamed_response
                assert len(given.body) <= PIECE_BYTES + 100
                self.sent += len(given.body)

    context = Counting(messages())
    live = Live(SNAPSHOT, FakeAsker(), 32 << 20, window_bytes=window)
    servicer = Servicer(lambda: live, Telemetry())
    tracemalloc.start()
    try:
        await servicer.process(None, context)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert context.sent == size + len(b'{"messages":[{"role":"user","content":""}],"model":"large"}')
    # The head takes what it takes a parser; the other 40 MiB take nothing.
    assert peak < 20 * window < size / 4
