"""Body bytes to `LlmCall`, one function per API dialect.

Only what routing needs is read, and only as far as its type is right: anything else in the body is
the upstream's business. What cannot be read is a `Reason`, not an exception, because the request
goes on all the same.

Sources: the OpenAI API reference (chat completions, responses, completions, embeddings) and the
Anthropic API reference (messages).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

import orjson

from ext_proc.core import headers, inline, spans
from ext_proc.core.errors import Reason
from ext_proc.core.types import Dialect, LlmCall, Message

_LLM_PATH = re.compile(headers.LLM_PATH)
_DIALECTS = {
    "chat/completions": Dialect.CHAT_COMPLETIONS,
    "responses": Dialect.RESPONSES,
    "messages": Dialect.MESSAGES,
    "completions": Dialect.COMPLETIONS,
    "embeddings": Dialect.EMBEDDINGS,
}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


_STATEFUL = ("conversation", "previous_response_id", "background")
"""Fields of the responses API that refer to what the provider keeps, or leave an answer there."""


class _WrongType(Exception):
    """A field that routing reads has a type that its dialect does not allow."""


def dialect_of(method: str, path: str) -> Dialect | None:
    """The dialect of a request, or None if it is no LLM call."""
    path = path.partition("?")[0]
    if method != "POST" or not _LLM_PATH.fullmatch(path):
        return None
    return _DIALECTS[path.rpartition("/v1/")[2]]


def is_json(content_type: str) -> bool:
    """Whether a body of this content type can be read. None counts as JSON, as the providers read it."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("", "application/json") or media_type.endswith("+json")


def dialect_of_endpoint(path: str) -> Dialect | None:
    """The dialect of a path that only ends as one of an LLM call, as a provider's own does."""
    bare = path.partition("?")[0]
    return next((dialect for end, dialect in _DIALECTS.items() if bare.endswith(f"/{end}")), None)


def parse_call(dialect: Dialect, body: bytes) -> LlmCall | Reason:
    """Read one request body.

    Errors: as `load_object`; BODY_UNREADABLE for a field of a wrong type too.
    """
    fields = load_object(body)
    if isinstance(fields, Reason):
        return fields
    try:
        return LlmCall(
            dialect=dialect,
            model=_optional_text(fields.get("model")),
            messages=tuple(_READERS[dialect](fields)),
            stream=fields.get("stream") is True,
            conversation_id=_conversation_id(fields),
            user_id=_user_id(fields),
            inline_policies=inline.read(fields),
            has_images=_has_images(fields),
            has_tools=bool(fields.get("tools") or fields.get("functions")),
            max_tokens=_max_tokens(fields),
            is_stateful=dialect is Dialect.RESPONSES and any(fields.get(key) for key in _STATEFUL),
        )
    except _WrongType:
        return Reason.BODY_UNREADABLE


def load_object(body: bytes) -> dict[str, Any] | Reason:
    """A body's JSON object.

    Errors: BODY_EMPTY; BODY_UNREADABLE for what is no JSON object; BODY_TOO_INTRICATE.
    """
    if not body or body.isspace():
        return Reason.BODY_EMPTY
    if spans.is_intricate(body):
        return Reason.BODY_TOO_INTRICATE
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Reason.BODY_UNREADABLE
    return fields if isinstance(fields, dict) else Reason.BODY_UNREADABLE


def read_message(item: object) -> Message | None:
    """One message as chat completions and messages have it; None for what is none."""
    try:
        (message,) = _chat_completions({"messages": [item]})
    except _WrongType:
        return None
    return message


def _chat_completions(fields: dict[str, Any]) -> Iterable[Message]:
    for item in _list_of_objects(fields.get("messages")):
        yield Message(_text(item.get("role")), _content(item.get("content")))


def _responses(fields: dict[str, Any]) -> Iterable[Message]:
    if instructions := _optional_text(fields.get("instructions")):
        yield Message("system", instructions)
    given = fields.get("input")
    if given is None or isinstance(given, str):
        yield from [Message("user", given)] if given else []
        return
    for item in _list_of_objects(given):
        kind = item.get("type", "message")
        if kind == "message":
            yield Message(_text(item.get("role")), _content(item.get("content")))
        elif isinstance(kind, str) and kind.endswith("_output"):
            yield Message("tool", "")


def _messages(fields: dict[str, Any]) -> Iterable[Message]:
    if fields.get("system") is not None:
        yield Message("system", _content(fields["system"]))
    for item in _list_of_objects(fields.get("messages")):
        role, content = _text(item.get("role")), item.get("content")
        if role == "user" and _only_tool_results(content):
            role = "tool"
        yield Message(role, _content(content))


def _completions(fields: dict[str, Any]) -> Iterable[Message]:
    yield from _texts_as_user(fields.get("prompt"))


def _embeddings(fields: dict[str, Any]) -> Iterable[Message]:
    yield from _texts_as_user(fields.get("input"))


_READERS: dict[Dialect, Callable[[dict[str, Any]], Iterable[Message]]] = {
    Dialect.CHAT_COMPLETIONS: _chat_completions,
    Dialect.RESPONSES: _responses,
    Dialect.MESSAGES: _messages,
    Dialect.COMPLETIONS: _completions,
    Dialect.EMBEDDINGS: _embeddings,
}


def _has_images(fields: dict[str, Any]) -> bool:
    """Whether some turn shows an image, also as what a tool gave back."""
    for turns in (fields.get("messages"), fields.get("input")):
        for turn in turns if isinstance(turns, list) else ():
            # Most turns are a text, which costs no more than to see that it is one.
            content = turn.get("content", turn.get("output")) if isinstance(turn, dict) else None
            if isinstance(content, list) and _shows_an_image(content):
                return True
    return False


def _shows_an_image(content: list[object]) -> bool:
    return any(
        _is_one_of(part.get("type"), _IMAGE_PARTS)
        for outer in _objects(content)
        for part in (outer, *_objects(outer.get("content")))
    )


def _max_tokens(fields: dict[str, Any]) -> int:
    for key in _LIMITS:
        limit = fields.get(key)
        if _is_whole(limit):
            return limit
    return 0


def _objects(given: object) -> Iterable[dict[str, Any]]:
    return (item for item in given if isinstance(item, dict)) if isinstance(given, list) else ()


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _texts_as_user(given: object) -> Iterable[Message]:
    """A prompt: one text, several, or token ids (one list or several), which say nothing to a router."""
    if given is None:
        return
    if isinstance(given, str):
        yield Message("user", given)
    elif isinstance(given, list):
        texts = [item for item in given if isinstance(item, str)]
        if texts:
            yield Message("user", "\n".join(texts))
    else:
        raise _WrongType


def _content(content: object) -> str:
    """The text of a message: the string itself, or its text parts, one a line. Other parts have none."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(
        _text(part.get("text"))
        for part in _list_of_objects(content, strings_too=True)
        if _is_one_of(part.get("type"), _TEXT_PARTS)
    )


def _is_one_of(kind: object, kinds: frozenset[str]) -> bool:
    return isinstance(kind, str) and kind in kinds


def _only_tool_results(content: object) -> bool:
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(part, dict) and part.get("type") == "tool_result" for part in content)
    )


def _list_of_objects(given: object, *, strings_too: bool = False) -> Iterable[dict[str, Any]]:
    if given is None:
        return
    if not isinstance(given, list):
        raise _WrongType
    for item in given:
        if isinstance(item, dict):
            yield item
        elif strings_too and isinstance(item, str):
            yield {"type": "text", "text": item}
        else:
            raise _WrongType


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _WrongType
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _conversation_id(fields: dict[str, Any]) -> str | None:
    conversation = fields.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    return _first_id(conversation) or _id_in_metadata(fields, "conversation_id", "session_id", "thread_id")


def _user_id(fields: dict[str, Any]) -> str | None:
    known = _first_id(fields.get("user"), fields.get("safety_identifier"))
    return known or _id_in_metadata(fields, "user_id", "user")


def _id_in_metadata(fields: dict[str, Any], *keys: str) -> str | None:
    metadata = fields.get("metadata")
    return _first_id(*map(metadata.get, keys)) if isinstance(metadata, dict) else None


def _first_id(*candidates: object) -> str | None:
    for value in candidates:
        if isinstance(value, str) and value:
            return value
    return None
