"""An answer looked at while it passes: tokens, whether it failed, and its contents if they are wanted.

Chunks may be cut anywhere and the result is the same. Memory is bounded whatever the answer's size: a JSON
answer is held up to a limit, beyond it only its tail; of a stream, one event and the contents wanted. Time is
bounded too: a chunk is read in steps, and what unpacks to more than answers do is given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from ext_proc.core.reply import FINAL_RESPONSES, Reply, ReplyDraft, read_reply
from ext_proc.core.spans import is_intricate
from ext_proc.core.sse import LOST, Event, EventStream
from ext_proc.core.unpack import PIECE_BYTES, DamagedError, unpacker
from ext_proc.core.usage import UNKNOWN, Usage, read_usage, usage_in_tail

HELD_BYTES = 256 << 10
"""A JSON answer up to this is parsed whole: with a thousand streams open, a quarter of a gigabyte."""

TAIL_BYTES = 32 << 10
"""The end of a longer one, in which its usage block stands: every API writes it after the contents."""

EVENT_BYTES = 1 << 20
"""The longest event: the last one of a streamed response repeats instructions, tools and the answer."""

MAX_EVENT_MARKS = 100_000
"""Brackets and colons of an event that is parsed: as many as the longest with its words' probabilities."""

STEP_BYTES = 64 << 10
"""About how much is read in one step, packed and unpacked bytes together: some ten milliseconds."""

READ_BYTES = 64 << 20
"""What an answer may unpack to before it is no longer looked at: a stream of 200,000 events of a token."""

UNPACKED_PER_PACKED = 160
"""How many bytes one may unpack to. Streams of a token an event, packed whole, have 60 to 110 (ADR 0048)."""

UNPACKED_AT_LEAST = 1 << 20
"""What any answer may unpack to, however small it is packed: short ones may be of one thing repeated."""

_INPUT_BYTES = 16 << 10
"""How much is given to an unpacker at once: each member of a gzip stream costs a copy of what follows it."""

_LAST_EVENTS = 3
_ENDS = ("message_stop", *FINAL_RESPONSES)
_FAILURES = ("error", "response.failed")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read. `failed`: an error instead of an answer, or an end in the middle of one.

    `reply` is None when it was not wanted, is too long, or could not be read. `unread`: looking at it was
    given up, because its coding is not known or damaged, or unpacks to more than is read.
    """

    usage: Usage = UNKNOWN
    failed: bool = False
    reply: Reply | None = None
    unread: bool = False


class AnswerReader:
    """Feed it an answer's body. `reply_limit_bytes` of contents are kept; 0: they are not wanted."""

    __slots__ = ("_content", "_is_lost", "_packed", "_unpacked", "_unpacker")

    def __init__(self, content_type: str, content_encoding: str = "", reply_limit_bytes: int = 0) -> None:
        media_type = content_type.partition(";")[0].strip().lower()
        self._unpacker = unpacker(content_encoding)
        self._is_lost = self._unpacker is None
        self._packed = 0
        self._unpacked = 0
        self._content: _Json | _Events
        if media_type == "text/event-stream":
            self._content = _Events(reply_limit_bytes)
        else:
            self._content = _Json(reply_limit_bytes, is_json=media_type.endswith("json"))

    def feed(self, chunk: bytes) -> Iterator[None]:
        """Take the next bytes, a step of about `STEP_BYTES` with each item; most chunks need none between.

        Nothing is read unless the steps are taken, all of them. Total: what cannot be read is `unread`.
        """
        self._packed += len(chunk)
        done = 0
        for at in range(0, len(chunk), _INPUT_BYTES):
            packed = chunk[at : at + _INPUT_BYTES]
            done += len(packed)
            for piece in self._pieces(packed):
                self._content.feed(piece)
                done += len(piece)
                if done >= STEP_BYTES:
                    done = 0
                    yield

    def finish(self) -> Reading:
        """What was read, now that the answer has ended."""
        return Reading(unread=self._packed > 0) if self._is_lost else self._content.finish()

    def _pieces(self, packed: bytes) -> Iterator[bytes]:
        """The contents, none of them longer than `PIECE_BYTES`, until they are more than is read."""
        if self._is_lost or self._unpacker is None:
            return
        try:
            for piece in self._unpacker.feed(packed):
                self._unpacked += len(piece)
                by_size = max(UNPACKED_AT_LEAST, UNPACKED_PER_PACKED * self._packed)
                if self._unpacked > min(READ_BYTES, by_size):
                    self._is_lost = True
                    return
                # An empty one is a member of its own, and a step's work as well.
                for at in range(0, len(piece) or 1, PIECE_BYTES):
                    yield piece[at : at + PIECE_BYTES]
        except DamagedError:
            self._is_lost = True


class _Json:
    __slots__ = ("_held", "_is_json", "_is_whole", "_limit", "_reply_limit")

    def __init__(self, reply_limit: int, *, is_json: bool) -> None:
        self._reply_limit = reply_limit
        # JSON may write a character in six bytes or more.
        self._limit = max(HELD_BYTES, 4 * reply_limit)
        self._held = bytearray()
        self._is_whole = True
        self._is_json = is_json

    def feed(self, chunk: bytes) -> None:
        self._held += chunk
        if len(self._held) > (self._limit if self._is_whole else 2 * TAIL_BYTES):
            self._is_whole = False
            del self._held[:-TAIL_BYTES]

    def finish(self) -> Reading:
        if not self._is_whole:
            return Reading(usage_in_tail(bytes(self._held[-TAIL_BYTES:])))
        fields = _object(self._held)
        if fields is None:
            return Reading(failed=self._is_json)
        reply = read_reply(fields) if self._reply_limit else None
        if reply is not None and reply.size > self._reply_limit:
            reply = None
        return Reading(read_usage(fields.get("usage")), _is_failure(fields), reply)


class _Events:
    __slots__ = ("_draft", "_failed", "_last", "_stream", "_usage")

    def __init__(self, reply_limit: int) -> None:
        self._stream = EventStream(EVENT_BYTES)
        self._draft = ReplyDraft(reply_limit) if reply_limit else None
        self._usage = UNKNOWN
        self._failed = False
        self._last: deque[Event] = deque(maxlen=_LAST_EVENTS)

    def feed(self, chunk: bytes) -> None:
        for event in self._stream.feed(chunk):
            self._take(event)

    def finish(self) -> Reading:
        for event in self._stream.finish():
            self._take(event)
        ended = any(_is_end(event) for event in self._last)
        reply = self._draft.finish() if self._draft is not None else None
        return Reading(self._usage, self._failed or not ended, reply)

    def _take(self, event: Event) -> None:
        if is_intricate(event.data, MAX_EVENT_MARKS):
            event = LOST
        self._last.append(event)
        # Most events of a long stream say nothing that counts, unless the contents are wanted.
        says_something = (
            self._draft is not None
            or event.name in _FAILURES
            or b'"usage"' in event.data
            or b'"error"' in event.data
        )
        if not says_something or (fields := _object(event.data)) is None:
            return
        kind = fields.get("type")
        self._failed |= event.name in _FAILURES or kind in _FAILURES or _is_failure(fields)
        if kind == "message_start":
            # Its output tokens are those of the first piece, not of the answer.
            begun = read_usage(_member(fields, "message").get("usage"))
            self._usage = self._usage.updated(Usage(begun.tokens_in))
        elif kind in FINAL_RESPONSES:
            self._usage = self._usage.updated(read_usage(_member(fields, "response").get("usage")))
        elif kind is None or kind == "message_delta":
            self._usage = self._usage.updated(read_usage(fields.get("usage")))
        if self._draft is not None:
            self._draft.take(fields)


def _is_end(event: Event) -> bool:
    """Whether a stream may end after this: its API's last event, a finished choice, or one not kept."""
    if event is LOST or event.data == b"[DONE]":
        return True
    fields = _object(event.data) or {}
    choices = fields.get("choices")
    finished = isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") is not None for choice in choices
    )
    return finished or fields.get("type") in _ENDS


def _is_failure(fields: dict[str, Any]) -> bool:
    """Whether an object is an error: some providers send one with status 200."""
    return bool(fields.get("error")) or fields.get("status") == "failed"


def _member(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key)
    return value if isinstance(value, dict) else {}


def _object(data: bytes | bytearray) -> dict[str, Any] | None:
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None
