"""Answers as the providers write them, whole and streamed, each with what is to be read of it."""

from __future__ import annotations

from typing import Any

import orjson

from ext_proc.core.reading import AnswerReader, Reading
from ext_proc.core.reply import Reply, ToolCall
from ext_proc.core.usage import Usage

CITY = '{"city":"Zürich"}'


def sse(*events: tuple[str, Any], end: str = "\n") -> bytes:
    """Named or nameless events with JSON (or text) as data."""
    lines = []
    for name, data in events:
        text = data if isinstance(data, str) else orjson.dumps(data).decode()
        lines += [f"event: {name}"] if name else []
        lines += [f"data: {text}", ""]
    return "".join(line + end for line in lines).encode()


def chunk(finish: str | None = None, usage: Any = None, **delta: Any) -> tuple[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return "", {"object": "chat.completion.chunk", "choices": choices, "usage": usage}


CHAT = {
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "It rains.",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "weather", "arguments": CITY}}
                ],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
}
RESPONSE = {
    "object": "response",
    "status": "completed",
    "error": None,
    "output": [
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "It rains."}]},
        {"type": "function_call", "name": "weather", "arguments": CITY, "call_id": "1"},
    ],
    "usage": {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 7},
    "user": None,
}
MESSAGE = {
    "type": "message",
    "content": [
        {"type": "text", "text": "It rains."},
        {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Zürich"}},
    ],
    "stop_reason": "tool_use",
    "usage": {
        "input_tokens": 5,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 4,
        "output_tokens": 7,
    },
}
COMPLETION = {
    "object": "text_completion",
    "choices": [{"index": 0, "text": "It rains.", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7},
}

CHAT_EVENTS = (
    chunk(role="assistant", content=""),
    chunk(content="It "),
    chunk(content="rains."),
    chunk(tool_calls=[{"index": 0, "id": "1", "function": {"name": "weather", "arguments": ""}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": CITY[:7]}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": CITY[7:]}}]),
    chunk("tool_calls"),
    ("", {"object": "chat.completion.chunk", "choices": [], "usage": CHAT["usage"]}),
    ("", "[DONE]"),
)
RESPONSE_EVENTS = (
    ("response.created", {"type": "response.created", "response": {**RESPONSE, "output": [], "usage": None}}),
    ("response.output_text.delta", {"type": "response.output_text.delta", "delta": "It rains."}),
    ("response.completed", {"type": "response.completed", "response": RESPONSE}),
)
MESSAGE_EVENTS = (
    (
        "message_start",
        {
            "type": "message_start",
            "message": {
                "usage": {
                    "input_tokens": 5,
                    "cache_creation_input_tokens": 2,
                    "cache_read_input_tokens": 4,
                    "output_tokens": 1,
                }
            },
        },
    ),
    (
        "content_block_start",
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ),
    ("ping", {"type": "ping"}),
    (
        "content_block_delta",
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "It "}},
    ),
    (
        "content_block_delta",
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "rains."}},
    ),
    ("content_block_stop", {"type": "content_block_stop", "index": 0}),
    (
        "content_block_start",
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "1", "name": "weather", "input": {}},
        },
    ),
    (
        "content_block_delta",
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": CITY},
        },
    ),
    (
        "message_delta",
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
    ),
    ("message_stop", {"type": "message_stop"}),
)

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
SPOKEN = Reply("It rains.", (ToolCall("weather", CITY),))

ANSWERS: dict[str, tuple[str, bytes, Reading]] = {
    "chat": (JSON, orjson.dumps(CHAT), Reading(Usage(11, 7), False, SPOKEN)),
    "chat, streamed": (EVENTS, sse(*CHAT_EVENTS), Reading(Usage(11, 7), False, SPOKEN)),
    "chat, streamed, CRLF": (EVENTS, sse(*CHAT_EVENTS, end="\r\n"), Reading(Usage(11, 7), False, SPOKEN)),
    "chat, streamed, CR": (EVENTS, sse(*CHAT_EVENTS, end="\r"), Reading(Usage(11, 7), False, SPOKEN)),
    "chat, streamed, no usage": (
        EVENTS,
        sse(chunk(content="It rains."), chunk("stop"), ("", "[DONE]")),
        Reading(Usage(), False, Reply("It rains.")),
    ),
    "response": (JSON, orjson.dumps(RESPONSE), Reading(Usage(11, 7), False, SPOKEN)),
    "response, streamed": (EVENTS, sse(*RESPONSE_EVENTS), Reading(Usage(11, 7), False, SPOKEN)),
    "message": (JSON, orjson.dumps(MESSAGE), Reading(Usage(11, 7), False, SPOKEN)),
    "message, streamed": (EVENTS, sse(*MESSAGE_EVENTS), Reading(Usage(11, 7), False, SPOKEN)),
    "completion": (JSON, orjson.dumps(COMPLETION), Reading(Usage(11, 7), False, Reply("It rains."))),
    "completion, streamed": (
        EVENTS,
        sse(("", COMPLETION), ("", "[DONE]")),
        Reading(Usage(11, 7), False, Reply("It rains.")),
    ),
    "an error with status 200": (
        JSON,
        b'{"error":{"message":"overloaded","code":502}}',
        Reading(failed=True),
    ),
    "an error in a chat stream": (
        EVENTS,
        sse(chunk(content="It "), ("", {"error": {"message": "overloaded"}})),
        Reading(failed=True, reply=Reply("It ")),
    ),
    "an error in a message stream": (
        EVENTS,
        sse(*MESSAGE_EVENTS[:4], ("error", {"type": "error", "error": {"type": "overloaded_error"}})),
        Reading(Usage(11), True, Reply("It ")),
    ),
    "a failed response": (
        EVENTS,
        sse(("response.failed", {"type": "response.failed", "response": {"status": "failed", "output": []}})),
        Reading(failed=True, reply=Reply("")),
    ),
    "a stream that ends in the middle": (
        EVENTS,
        sse(*CHAT_EVENTS[:3]),
        Reading(failed=True, reply=Reply("It rains.")),
    ),
    "a stream without a last empty line": (
        EVENTS,
        sse(chunk(content="It rains."), chunk("stop", {"prompt_tokens": 1, "completion_tokens": 2}))[:-2],
        Reading(Usage(1, 2), False, Reply("It rains.")),
    ),
    "JSON that ends in the middle": (JSON, orjson.dumps(CHAT)[:-9], Reading(failed=True)),
    "no JSON at all": ("text/plain", b"hello", Reading()),
}


def read(content_type: str, *chunks: bytes, encoding: str = "", limit: int = 1 << 16) -> Reading:
    reader = AnswerReader(content_type, encoding, limit)
    for piece in chunks:
        feed(reader, piece)
    return reader.finish()


def feed(reader: AnswerReader, piece: bytes) -> int:
    """Feed a reader in as many steps as it takes; how many turns others had between them."""
    return sum(1 for _ in reader.feed(piece))
