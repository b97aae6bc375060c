"""What is read of an answer while it passes."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import brotli
import orjson
import pytest
import zstandard

from ext_proc.core.reading import HELD_BYTES, AnswerReader, Reading
from ext_proc.core.reply import Reply
from ext_proc.core.types import Price
from ext_proc.core.usage import UNKNOWN, Usage, cost_of, read_usage, usage_in_tail
from tests.support.answers import ANSWERS, CHAT, CHAT_EVENTS, EVENTS, JSON, MESSAGE_EVENTS, chunk, read, sse


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
    assert read(JSON, b"\x1f\x8bnot in this coding", b"\xff" * 99, encoding=encoding) == Reading()


def test_a_bomb_is_not_unpacked_to_its_end() -> None:
    layer = gzip.compress(bytes(8 << 20))
    reader = AnswerReader(JSON, "gzip")
    tracemalloc.start()
    try:
        for _ in range(40):
            reader.feed(layer)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.finish() == Reading()
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
            reader.feed(body[at : at + (16 << 10)])
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
            reader.feed(piece)
        reader.feed(sse(*CHAT_EVENTS[-3:]))
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
        reader.feed(b"data: ")
        for _ in range(1_000):
            reader.feed(b"x" * (16 << 10))
        _, peak = tracemalloc.get_traced_memory()
        reader.feed(b"\n\n" + sse(*CHAT_EVENTS))
    finally:
        tracemalloc.stop()
    assert reader.finish().usage == Usage(11, 7)
    assert peak < 3 << 20


@pytest.mark.parametrize("name", ["chat", "chat, streamed", "response, streamed", "message, streamed"])
def test_contents_beyond_the_limit_are_given_up(name: str) -> None:
    content_type, body, wanted = ANSWERS[name]
    assert read(content_type, body, limit=12).reply is None
    assert read(content_type, body, limit=12).usage == wanted.usage


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
