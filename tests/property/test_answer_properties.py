"""Answers as nobody writes them: nothing raises, and chunks may end anywhere."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.core.reading import AnswerReader
from tests.support.answers import ANSWERS, EVENTS, JSON, feed, read, sse

CONTENT_TYPES = st.sampled_from([JSON, EVENTS, "", "text/html"])
ENCODINGS = st.sampled_from(["", "gzip", "deflate", "br", "zstd", "exotic"])
KEYS = st.sampled_from(
    [
        "choices",
        "delta",
        "message",
        "content",
        "text",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "index",
        "type",
        "usage",
        "error",
        "refusal",
        "prompt_tokens",
        "output_tokens",
        "response",
        "output",
        "item",
        "content_block",
        "input",
        "finish_reason",
        "status",
    ]
)
VALUES = st.sampled_from(
    ["message_start", "message_delta", "content_block_delta", "content_block_start", "response.completed"]
)
JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@given(CONTENT_TYPES, ENCODINGS, st.lists(st.binary(max_size=80), max_size=8))
def test_any_bytes_can_be_read(content_type: str, encoding: str, chunks: list[bytes]) -> None:
    read(content_type, *chunks, encoding=encoding)


@given(JSON_VALUES)
def test_any_json_can_be_read(value: object) -> None:
    read(JSON, orjson.dumps(value))


@given(st.lists(st.tuples(st.sampled_from(["", "error", "message_start"]), JSON_VALUES), max_size=5))
def test_any_events_can_be_read(events: list[tuple[str, Any]]) -> None:
    read(EVENTS, sse(*((name, orjson.dumps(data).decode()) for name, data in events)))


@given(st.sampled_from([name for name, (kind, _, _) in ANSWERS.items() if kind == EVENTS]), st.data())
def test_a_stream_may_be_cut_into_any_chunks(name: str, data: st.DataObject) -> None:
    content_type, body, wanted = ANSWERS[name]
    reader = AnswerReader(content_type, "", 1 << 16)
    while body:
        size = data.draw(st.integers(1, len(body)))
        feed(reader, body[:size])
        body = body[size:]
    assert reader.finish() == wanted
