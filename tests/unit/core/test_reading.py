"""What is read of an answer while it passes."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable
from string import ascii_lowercase
from typing import Any

import brotli
import orjson
import pytest
import zstandard

from ext_proc.core.reading import (
    HELD_BYTES,
    MAX_EVENT_MARKS,
    READ_BYTES,
    STEP_BYTES,
    UNPACKED_AT_LEAST,
    UNPACKED_PER_PACKED,
    AnswerReader,
    Reading,
)
from ext_proc.core.reply import Reply
from ext_proc.core.types import Price
from ext_proc.core.usage import UNKNOWN, Usage, cost_of, read_usage, usage_in_tail
from tests.support.answers import (
    ANSWERS,
    CHAT,
    CHAT_EVENTS,
    EVENTS,
    JSON,
    MESSAGE_EVENTS,
    chunk,
    feed,
    read,
    sse,
)

TOKEN: dict[str, Any] = {
    "id": "chatcmpl-AbCdEf0123456789AbCdEf0123",
    "object": "chat.completion.chunk",
    "created": 1750000000,
    "model": "gpt-5-2025-08-07",
    "service_tier": "default",
    "system_fingerprint": "fp_0123456789",
}
"""What a provider repeats around every token of a stream."""

A_TOOL = {"type": "tool_use", "id": "1", "name": "n" * 100}


def choice(text: str) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_api_is_read_whole_and_streamed(name: str) -> None:
    content_type, body, wanted = ANSWERS[name]
    assert read(content_type, body) == wanted


@pytest.mark.parametrize("name", ANSWERS)
def test_contents_are_kept_only_when_they_are_wanted(name: str) -> None:
    content_type, body, wanted = ANSWERS[name]
    assert read(content_type, body, limit=0) == Reading(wanted.usage, wanted.failed)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_reading_does_not_depend_on_where_the_chunks_end(name: str) -> None:
    content_type, body, wanted = ANSWERS[name]
    assert read(content_type, *(bytes([byte]) for byte in body)) == wanted
    for at in range(len(body)):
        assert read(content_type, body[:at], body[at:]) == wanted


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", lambda body: gzip.compress(body[:50]) + gzip.compress(body[50:])),
        ("deflate", zlib.compress),
        ("br", brotli.compress),
        ("zstd", zstandard.compress),
        ("identity", bytes),
    ],
)
@pytest.mark.parametrize("name", ["chat", "chat, streamed", "message, streamed"])
def test_compressed_answers_are_unpacked_as_they_come(encoding: str, pack: object, name: str) -> None:
    content_type, body, wanted = ANSWERS[name]
    packed = pack(body)  # type: ignore[operator]
    assert read(content_type, packed, encoding=encoding) == wanted
    assert read(content_type, *(bytes([byte]) for byte in packed), encoding=encoding) == wanted


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "exotic", "gzip, br"])
def test_what_cannot_be_unpacked_says_nothing(encoding: str) -> None:
    packed = (b"\x1f\x8bnot in this coding", b"\xff" * 99)
    assert read(JSON, *packed, encoding=encoding) == Reading(unread=True)
    assert read(JSON, encoding="exotic") == Reading()


PACKED = {
    "": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda body: brotli.compress(body, quality=5),
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("encoding", PACKED)
def test_a_long_stream_packed_whole_is_read_whole_with_turns_for_others(encoding: str) -> None:
    words = ("".join(random.Random(at).choices(ascii_lowercase, k=5)) for at in range(8_000))
    body = sse(*(("", {**TOKEN, "choices": [choice(word)]}) for word in words), *CHAT_EVENTS[-3:])
    assert len(body) > 2 << 20
    reader = AnswerReader(EVENTS, encoding)
    turns = feed(reader, PACKED[encoding](body))
    assert reader.finish() == Reading(Usage(11, 7))
    assert turns >= len(body) // (2 * STEP_BYTES)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("line", [b'data: {"usage":1}\n\n', b"data:\n\n", b"\n"])
def test_one_thing_repeated_is_given_up_after_what_its_size_allows(encoding: str, line: bytes) -> None:
    body = line * ((4 << 20) // len(line))
    packed = PACKED[encoding](body)
    reader = AnswerReader(EVENTS, encoding)
    turns = feed(reader, packed)
    assert reader.finish() == Reading(unread=True)
    assert turns * STEP_BYTES <= max(UNPACKED_AT_LEAST, UNPACKED_PER_PACKED * len(packed)) < len(body)


def test_empty_members_are_steps_too() -> None:
    packed = gzip.compress(b"") * 10_000
    assert feed(AnswerReader(EVENTS, "gzip"), packed) >= len(packed) // (2 * STEP_BYTES)


def test_an_event_of_nothing_but_structure_is_not_parsed() -> None:
    event = b'data: {"usage": {"prompt_tokens": 1}, "x": [' + b"[]," * (MAX_EVENT_MARKS + 1) + b"[]]}\n\n"
    assert read(EVENTS, event, sse(*CHAT_EVENTS), limit=0) == Reading(Usage(11, 7))
    assert read(EVENTS, event) == Reading(reply=Reply(""))


def test_an_answer_without_an_end_is_given_up_however_little_it_is_packed() -> None:
    reader = AnswerReader(EVENTS)
    for _ in range(READ_BYTES >> 20):
        feed(reader, b"x" * (1 << 20))
    assert not reader.finish().unread
    feed(reader, b"x")
    assert reader.finish() == Reading(unread=True)


def test_a_bomb_is_not_unpacked_to_its_end() -> None:
    layer = gzip.compress(bytes(8 << 20))
    reader = AnswerReader(JSON, "gzip")
    tracemalloc.start()
    try:
        for _ in range(40):
            feed(reader, layer)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.finish() == Reading(unread=True)
    assert peak < 4 << 20


def test_a_large_answer_is_not_held_and_its_usage_is_read_from_its_end() -> None:
    said = '"usage": {"prompt_tokens": 1, "completion_tokens": 1} ' * 20
    answer = {
        "choices": [{"message": {"content": said * 10_000, "usage": {"prompt_tokens": 2}}}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 400},
        "note": [{"usage": {"prompt_tokens": 5, "completion_tokens": 5}}, '"usage":{"prompt_tokens":6}}'],
    }
    body = orjson.dumps(answer)
    assert len(body) > 10 << 20
    reader = AnswerReader(JSON, "", 1 << 10)
    tracemalloc.start()
    try:
        for at in range(0, len(body), 16 << 10):
            feed(reader, body[at : at + (16 << 10)])
        reading = reader.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reading == Reading(Usage(30, 400))
    assert peak < 4 * HELD_BYTES


def test_a_long_stream_is_not_held() -> None:
    piece = sse(chunk(content="word " * 20))
    reader = AnswerReader(EVENTS)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            feed(reader, piece)
        feed(reader, sse(*CHAT_EVENTS[-3:]))
        reading = reader.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reading == Reading(Usage(11, 7))
    assert peak < 1 << 20


def test_an_event_without_an_end_is_not_held() -> None:
    reader = AnswerReader(EVENTS, "", 1 << 10)
    tracemalloc.start()
    try:
        feed(reader, b"data: ")
        for _ in range(1_000):
            feed(reader, b"x" * (16 << 10))
        _, peak = tracemalloc.get_traced_memory()
        feed(reader, b"\n\n" + sse(*CHAT_EVENTS))
    finally:
        tracemalloc.stop()
    assert reader.finish().usage == Usage(11, 7)
    assert peak < 3 << 20


@pytest.mark.parametrize("name", ["chat", "chat, streamed", "response, streamed", "message, streamed"])
def test_contents_beyond_the_limit_are_given_up(name: str) -> None:
    content_type, body, wanted = ANSWERS[name]
    assert read(content_type, body, limit=12).reply is None
    assert read(content_type, body, limit=12).usage == wanted.usage


@pytest.mark.parametrize(
    "named",
    [
        lambda at: chunk(tool_calls=[{"index": at, "function": {"name": "n" * 100}}]),
        lambda at: chunk(tool_calls=[{"index": 0, "function": {"name": "n" * 100}}]),
        lambda at: chunk(tool_calls=[{"index": at, "function": {"name": ""}}] * 10),
        lambda at: ("", {"type": "content_block_start", "index": at, "content_block": A_TOOL}),
    ],
)
def test_names_of_tools_count_and_are_not_held_beyond_the_limit(named: Callable[[int], Any]) -> None:
    reader = AnswerReader(EVENTS, "", 1 << 10)
    tracemalloc.start()
    try:
        for at in range(5_000):
            feed(reader, sse(named(at)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    feed(reader, sse(*CHAT_EVENTS[-3:]))
    assert reader.finish() == Reading(Usage(11, 7))
    assert held < 256 << 10


def test_a_tool_call_counts_even_without_a_letter() -> None:
    calls = [{"type": "function_call"}] * 1_000
    assert read(JSON, orjson.dumps({"output": calls}), limit=999).reply is None
    ended = ("", {"type": "response.completed", "response": {"output": calls}})
    assert read(EVENTS, sse(ended), limit=999).reply is None


def test_a_stream_that_ends_before_its_answers_tokens_are_known_says_so() -> None:
    reading = read(EVENTS, sse(*MESSAGE_EVENTS[:-2]))
    assert reading.usage == Usage(11, None)
    assert reading.failed


def test_a_refusal_that_the_api_names_is_one() -> None:
    choice = {"index": 0, "message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}
    assert read(JSON, orjson.dumps({"choices": [choice]})).reply == Reply("No.", (), True)
    assert read(EVENTS, sse(chunk(refusal="No."), chunk("stop"))).reply == Reply("No.", (), True)
    message = {"type": "message", "content": [], "stop_reason": "refusal"}
    assert read(JSON, orjson.dumps(message)).reply == Reply("", (), True)
    output = [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]
    assert read(JSON, orjson.dumps({"output": output})).reply == Reply("No.", (), True)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {},
        {"prompt_tokens": "9", "completion_tokens": 1.5},
        {"prompt_tokens": True, "completion_tokens": -1},
        {"input_tokens": 1 << 60},
    ],
)
def test_a_usage_block_that_makes_no_sense_says_nothing(usage: object) -> None:
    assert read_usage(usage) == UNKNOWN


def test_a_proxy_that_names_cached_tokens_beside_prompt_tokens_counts_them_within() -> None:
    usage = {"prompt_tokens": 9, "cache_read_input_tokens": 4, "completion_tokens": 1}
    assert read_usage(usage) == Usage(9, 1)


@pytest.mark.parametrize(
    "tail",
    [
        b'x"},"usage":{"prompt_tokens":1}},{}]}',
        b'"usage":{"prompt_tokens":1}}}',
        b'{"a":"usage"}',
        b'\\"usage\\":{\\"prompt_tokens\\":1}}"}',
        b'"usage":{"prompt_tok',
        b"",
    ],
)
def test_a_usage_block_of_something_else_is_not_the_answers(tail: bytes) -> None:
    assert usage_in_tail(tail) == UNKNOWN


def test_cost_needs_a_price_and_both_numbers() -> None:
    price = Price(2.0, 10.0)
    assert cost_of(price, Usage(500_000, 100_000)) == pytest.approx(2.0)
    assert cost_of(None, Usage(1, 1)) is None
    assert cost_of(price, Usage(1, None)) is None
    assert cost_of(price, Usage(None, 1)) is None


def test_contents_do_not_show_themselves() -> None:
    reply = read(JSON, orjson.dumps(CHAT)).reply
    assert "rains" not in repr(reply)
    assert "weather" not in repr(reply)
