"""What a model said, in the shapes of every API: whole, and put together from a stream's events.

The shape of the JSON tells the API; a provider's path need not. Of several choices the first counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

FINAL_RESPONSES = ("response.completed", "response.incomplete", "response.failed")
"""The events of the responses API that carry the whole answer."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants called. `arguments` is JSON text, as the model wrote it."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's contents. Held in memory for a comparison, then dropped; never shown."""

    text: str = field(repr=False)
    tools: tuple[ToolCall, ...] = field(default=(), repr=False)
    refused: bool = False

    @property
    def size(self) -> int:
        """Characters of the text and of the tool calls, each of which counts one more."""
        return len(self.text) + sum(len(tool.name) + 1 + len(tool.arguments) for tool in self.tools)


def read_reply(fields: dict[str, Any]) -> Reply | None:
    """The contents of a whole answer. None for a shape that is not known."""
    if isinstance(fields.get("choices"), list):
        choice = _first(fields["choices"])
        return None if choice is None else _of_choice(choice)
    if isinstance(fields.get("output"), list):
        return _of_output(fields["output"])
    if isinstance(fields.get("content"), list):
        return _of_content(fields)
    return None


class ReplyDraft:
    """Puts a reply together from a stream's events. `limit_chars` bounds what it holds."""

    __slots__ = ("_arguments", "_limit", "_names", "_refused", "_size", "_text", "_whole")

    def __init__(self, limit_chars: int) -> None:
        self._limit = limit_chars
        self._size = 0
        self._text: list[str] = []
        self._names: dict[int, list[str]] = {}
        self._arguments: dict[int, list[str]] = {}
        self._refused = False
        self._whole: Reply | None = None

    def take(self, event: dict[str, Any]) -> None:
        """Take one event's JSON. Events that say nothing of the contents are welcome."""
        if isinstance(event.get("choices"), list):
            choice = _first(event["choices"])
            if choice is not None:
                self._take_choice(choice)
            return
        kind, index = event.get("type"), event.get("index")
        if kind in FINAL_RESPONSES:
            self._whole = read_reply(_dict(event.get("response")))
        elif kind == "content_block_start" and isinstance(index, int):
            block = _dict(event.get("content_block"))
            self._add_text(_str(block.get("text")))
            if block.get("type") == "tool_use":
                self._add_name(index, _str(block.get("name")))
        elif kind == "content_block_delta" and isinstance(index, int):
            delta = _dict(event.get("delta"))
            self._add_text(_str(delta.get("text")))
            self._add_arguments(index, _str(delta.get("partial_json")))
        elif kind == "message_delta":
            self._refused |= _dict(event.get("delta")).get("stop_reason") == "refusal"

    def finish(self) -> Reply | None:
        """The reply; None when it is longer than the limit."""
        if self._size > self._limit:
            return None
        if self._whole is not None:
            return self._whole if self._whole.size <= self._limit else None
        tools = (
            ToolCall("".join(names), "".join(self._arguments.get(index, ())))
            for index, names in sorted(self._names.items())
        )
        return Reply("".join(self._text), tuple(tools), self._refused)

    def _take_choice(self, choice: dict[str, Any]) -> None:
        delta = _dict(choice.get("delta"))
        self._add_text(_str(choice.get("text")))
        self._add_text(_str(delta.get("content")))
        refusal = _str(delta.get("refusal"))
        self._add_text(refusal)
        self._refused |= bool(refusal) or choice.get("finish_reason") == "content_filter"
        for position, call in enumerate(_dicts(delta.get("tool_calls"))):
            index = call.get("index")
            self._take_function(index if isinstance(index, int) else position, call.get("function"))
        if "function_call" in delta:
            self._take_function(-1, delta["function_call"])

    def _take_function(self, index: int, given: object) -> None:
        function = _dict(given)
        if (name := _str(function.get("name"))) or index not in self._names:
            self._add_name(index, name)
        self._add_arguments(index, _str(function.get("arguments")))

    def _add_text(self, text: str) -> None:
        self._size += len(text)
        if text and self._size <= self._limit:
            self._text.append(text)

    def _add_name(self, index: int, name: str) -> None:
        self._size += len(name) + 1
        if self._size <= self._limit:
            self._names.setdefault(index, []).append(name)

    def _add_arguments(self, index: int, text: str) -> None:
        self._size += len(text)
        if text and self._size <= self._limit:
            self._arguments.setdefault(index, []).append(text)


def _of_choice(choice: dict[str, Any]) -> Reply:
    message = _dict(choice.get("message"))
    refusal = _str(message.get("refusal"))
    text = _str(choice.get("text")) or _text_of(message.get("content"))
    functions = [call.get("function") for call in _dicts(message.get("tool_calls"))]
    functions += [message["function_call"]] if message.get("function_call") else []
    refused = bool(refusal) or choice.get("finish_reason") == "content_filter"
    return Reply(text + refusal, tuple(_tool(_dict(function)) for function in functions), refused)


def _of_output(output: list[Any]) -> Reply:
    texts: list[str] = []
    tools: list[ToolCall] = []
    refused = False
    for item in _dicts(output):
        if item.get("type") == "function_call":
            tools.append(_tool(item))
        for part in _dicts(item.get("content")) if item.get("type") == "message" else ():
            refusal = _str(part.get("refusal"))
            refused |= bool(refusal)
            texts.append(_str(part.get("text")) + refusal)
    return Reply("".join(texts), tuple(tools), refused)


def _of_content(fields: dict[str, Any]) -> Reply:
    parts = list(_dicts(fields["content"]))
    text = "".join(_str(part.get("text")) for part in parts)
    tools = (
        ToolCall(_str(part.get("name")), _as_json(part.get("input")))
        for part in parts
        if part.get("type") == "tool_use"
    )
    return Reply(text, tuple(tools), fields.get("stop_reason") == "refusal")


def _tool(function: dict[str, Any]) -> ToolCall:
    return ToolCall(_str(function.get("name")), _str(function.get("arguments")))


def _as_json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, UnicodeDecodeError):
        return ""


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    return "".join(_str(part.get("text")) for part in _dicts(content))


def _first(choices: list[Any]) -> dict[str, Any] | None:
    return next((choice for choice in _dicts(choices) if choice.get("index", 0) == 0), None)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> Iterable[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _str(value: object) -> str:
    return value if isinstance(value, str) else ""
