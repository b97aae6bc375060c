"""Body bytes to what routing needs of them, per dialect."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ext_proc.core.errors import Reason
from ext_proc.core.parse import dialect_of, is_json, parse_call
from ext_proc.core.types import Dialect, LlmCall, Message

CHAT = Dialect.CHAT_COMPLETIONS
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def parsed(dialect: Dialect, **fields: Any) -> LlmCall:
    call = parse_call(dialect, orjson.dumps(fields))
    assert isinstance(call, LlmCall)
    return call


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/responses", Dialect.RESPONSES),
        ("/v1/messages?beta=true", Dialect.MESSAGES),
        ("/v1/completions", Dialect.COMPLETIONS),
        ("/team/v1/embeddings", Dialect.EMBEDDINGS),
        ("/v1/v1/messages", Dialect.MESSAGES),
        ("/v1/chat/completions/", None),
        ("/v1/messages/count_tokens", None),
        ("/v1/responses/resp_1", None),
        ("/chat/completions", None),
        ("//v1/messages", None),
        ("/v1/models", None),
        ("/x?y=/v1/messages", None),
        ("", None),
    ],
)
def test_the_path_tells_the_dialect(path: str, dialect: Dialect | None) -> None:
    assert dialect_of("POST", path) is dialect


@pytest.mark.parametrize(
    ("content_type", "is_read"),
    [
        ("", True),
        ("application/json; charset=utf-8", True),
        ("Application/JSON", True),
        ("application/vnd.api+json", True),
        ("multipart/form-data; boundary=x", False),
        ("text/plain", False),
    ],
)
def test_only_json_is_read(content_type: str, is_read: bool) -> None:
    assert is_json(content_type) is is_read


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "post", ""])
def test_only_posts_are_calls(method: str) -> None:
    assert dialect_of(method, "/v1/messages") is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hi", "hi"),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, IMAGE, {"type": "text", "text": "b"}], "a\nb"),
        (["a", {"type": "text", "text": "b"}], "a\nb"),
        ([IMAGE], ""),
        ([{"type": "refusal", "refusal": "no"}, {"type": 7}, {}], ""),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}], "a\nb"),
    ],
)
def test_a_messages_text_is_its_text_parts(content: Any, text: str) -> None:
    call = parsed(CHAT, model="m", messages=[{"role": "user", "content": content}])
    assert call.messages == (Message("user", text),)


def test_a_chat_keeps_every_turn_in_order_tools_too() -> None:
    call = parsed(
        CHAT,
        messages=[
            {"role": "developer", "content": "d"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {}}]},
            {"role": "tool", "tool_call_id": "1", "content": "result"},
        ],
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"model": 1}}}],
    )
    assert call.model is None
    assert [(message.role, message.text) for message in call.messages] == [
        ("developer", "d"),
        ("user", "u"),
        ("assistant", ""),
        ("tool", "result"),
    ]


def test_responses_read_instructions_text_and_items() -> None:
    assert parsed(Dialect.RESPONSES, instructions="s", input="u").messages == (
        Message("system", "s"),
        Message("user", "u"),
    )
    call = parsed(
        Dialect.RESPONSES,
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image"}]},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "secret"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "b"}],
            },
        ],
    )
    assert call.messages == (Message("user", "a"), Message("tool", ""), Message("assistant", "b"))
    assert parsed(Dialect.RESPONSES, input="").messages == ()
    assert parsed(Dialect.RESPONSES).messages == ()


def test_anthropic_messages_read_system_blocks_and_tool_results() -> None:
    call = parsed(
        Dialect.MESSAGES,
        system=[{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "image", "source": {}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "r"}]},
            {"role": "user", "content": [{"type": "tool_result"}, {"type": "text", "text": "and now"}]},
        ],
    )
    assert call.messages == (
        Message("system", "s"),
        Message("user", "u"),
        Message("assistant", ""),
        Message("tool", ""),
        Message("user", "and now"),
    )
    assert parsed(Dialect.MESSAGES, system="s", messages=[]).messages == (Message("system", "s"),)


@pytest.mark.parametrize(
    ("given", "texts"),
    [("a", ["a"]), (["a", "b"], ["a\nb"]), ([1, 2], []), ([[1], [2]], []), (None, []), ([], [])],
)
@pytest.mark.parametrize(
    ("dialect", "field"), [(Dialect.COMPLETIONS, "prompt"), (Dialect.EMBEDDINGS, "input")]
)
def test_prompts_are_texts_or_tokens(dialect: Dialect, field: str, given: Any, texts: list[str]) -> None:
    assert [message.text for message in parsed(dialect, **{field: given}).messages] == texts


@pytest.mark.parametrize(("value", "expected"), [(True, True), (False, False), (None, False), (1, False)])
def test_stream_is_only_what_is_true(value: Any, expected: bool) -> None:
    assert parsed(CHAT, messages=[], stream=value).stream is expected


@pytest.mark.parametrize("body", [b"", b" \r\n\t"])
def test_an_empty_body_is_told_apart(body: bytes) -> None:
    assert parse_call(CHAT, body) is Reason.BODY_EMPTY


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'"{}"',
        b"{}{}",
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"{'a':1}",
        b'{"a":' * 5_000,
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("dialect", Dialect)
def test_what_is_no_json_object_is_unreadable(dialect: Dialect, body: bytes) -> None:
    assert parse_call(dialect, body) is Reason.BODY_UNREADABLE


def test_a_body_that_would_hold_everybody_up_is_not_parsed() -> None:
    assert parse_call(CHAT, b'{"x":[' + b"[]," * 600_000 + b"0]}") is Reason.BODY_TOO_INTRICATE


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (CHAT, {"model": 7}),
        (CHAT, {"messages": "hi"}),
        (CHAT, {"messages": {"role": "user"}}),
        (CHAT, {"messages": [7]}),
        (CHAT, {"messages": [{"content": "no role"}]}),
        (CHAT, {"messages": [{"role": ["user"], "content": "x"}]}),
        (CHAT, {"messages": [{"role": "user", "content": 7}]}),
        (CHAT, {"messages": [{"role": "user", "content": [7]}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]}),
        (Dialect.RESPONSES, {"input": 7}),
        (Dialect.RESPONSES, {"input": ["x"]}),
        (Dialect.RESPONSES, {"instructions": [], "input": "x"}),
        (Dialect.MESSAGES, {"system": 7, "messages": []}),
        (Dialect.COMPLETIONS, {"prompt": {}}),
        (Dialect.EMBEDDINGS, {"input": 7}),
    ],
)
def test_a_wrong_type_where_routing_reads_is_unreadable(dialect: Dialect, fields: dict[str, Any]) -> None:
    assert parse_call(dialect, orjson.dumps(fields)) is Reason.BODY_UNREADABLE


@pytest.mark.parametrize(
    "fields",
    [
        {"user": 7, "metadata": "x"},
        {"conversation": 7, "metadata": {"conversation_id": 7, "user_id": {}}},
        {"temperature": "warm", "tools": 7, "stream": "yes"},
    ],
)
def test_a_wrong_type_elsewhere_is_the_upstreams_business(fields: dict[str, Any]) -> None:
    call = parsed(CHAT, messages=[{"role": "user", "content": "x"}], **fields)
    assert (call.conversation_id, call.user_id, call.stream) == (None, None, False)


@pytest.mark.parametrize(
    ("fields", "conversation", "user"),
    [
        ({"conversation": "c", "user": "u"}, "c", "u"),
        ({"conversation": {"id": "c"}, "safety_identifier": "s"}, "c", "s"),
        ({"metadata": {"conversation_id": "c", "user_id": "u"}}, "c", "u"),
        ({"metadata": {"session_id": "s", "thread_id": "t", "user": "u"}}, "s", "u"),
        ({"metadata": {"thread_id": "t"}}, "t", None),
        ({"conversation": "", "user": "", "metadata": {"user_id": "u"}}, None, "u"),
        ({"conversation": "c", "metadata": {"conversation_id": "d"}}, "c", None),
    ],
)
def test_ids_come_from_wherever_a_dialect_has_them(
    fields: dict[str, Any], conversation: str | None, user: str | None
) -> None:
    call = parsed(CHAT, messages=[], **fields)
    assert (call.conversation_id, call.user_id) == (conversation, user)


def test_of_two_models_the_last_counts_as_for_most_parsers() -> None:
    call = parse_call(CHAT, b'{"model":"a","mod\\u0065l":"b"}')
    assert isinstance(call, LlmCall)
    assert call.model == "b"


TOOL_RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {}}]}


@pytest.mark.parametrize(
    ("dialect", "fields", "has_images"),
    [
        (CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}, True),
        (CHAT, {"messages": [{"role": "user", "content": "image_url"}]}, False),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}, {"type": ["image"]}]}]},
            False,
        ),
        (Dialect.RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, True),
        (Dialect.RESPONSES, {"input": [{"type": "x_output", "output": [{"type": "input_image"}]}]}, True),
        (Dialect.RESPONSES, {"input": "input_image"}, False),
        (
            Dialect.MESSAGES,
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            True,
        ),
        (Dialect.MESSAGES, {"messages": [{"role": "user", "content": [TOOL_RESULT]}]}, True),
        (Dialect.COMPLETIONS, {"prompt": "image"}, False),
    ],
)
def test_an_image_anywhere_among_the_turns_is_seen(
    dialect: Dialect, fields: dict[str, Any], has_images: bool
) -> None:
    assert parsed(dialect, **fields).has_images == has_images


@pytest.mark.parametrize(
    ("fields", "has_tools", "max_tokens"),
    [
        ({}, False, 0),
        ({"tools": [], "max_tokens": None}, False, 0),
        ({"tools": [{"type": "function"}], "max_tokens": 7}, True, 7),
        ({"functions": [{"name": "f"}], "max_completion_tokens": 8, "max_tokens": 7}, True, 8),
        ({"max_output_tokens": True, "max_tokens": -1}, False, 0),
    ],
)
def test_tools_and_the_longest_answer_are_seen(
    fields: dict[str, Any], has_tools: bool, max_tokens: int
) -> None:
    call = parsed(CHAT, messages=[{"role": "user", "content": "hi"}], **fields)
    assert (call.has_tools, call.max_tokens) == (has_tools, max_tokens)
