"""The head of a body that is too long to wait for: what it says of the call, as far as it goes.

A conversation stands in a body from its oldest turn to its newest, so the head tells how it began. What
the head breaks off counts where it is part of the conversation: half a message says what it is about. Any
other member counts only when another one follows it, because half of an id, a model's name or a list of
policies is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ext_proc.core import inline, spans
from ext_proc.core.errors import Reason
from ext_proc.core.parse import parse_call
from ext_proc.core.spans import TO_BRACKET, Edit
from ext_proc.core.types import Dialect, LlmCall

_CONVERSATION = frozenset({"messages", "input", "prompt", "instructions", "system"})
_TEXT = frozenset({"content", "text"})
_ALL = 6
"""As deep as any text stands: the body, its turns, one of them, its parts, one of them, the text."""
_WHOLE_TURNS = 2
"""The body and its turns, or its prompt: none of the turns is broken off."""

_WHOLE_CHARACTERS = re.compile(
    rb'"(?:[^"\\]++|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}'
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|)*+",
    re.DOTALL,
)
"""The empty alternative is for Python before 3.11.5: see `spans.TO_BRACKET`."""


@dataclass(frozen=True, slots=True)
class End:
    """How what begins in a head becomes JSON of its own: the head's bytes up to `at`, then `closing`."""

    at: int
    closing: bytes


def read(dialect: Dialect, head: bytes) -> LlmCall | Reason:
    """What a head says of its call. Errors: as `parse.parse_call`."""
    if spans.is_intricate(head):
        return Reason.BODY_TOO_INTRICATE
    call = _read(dialect, head, _ALL)
    if call is Reason.BODY_UNREADABLE:
        # A turn that is broken off before its role, or a part before its text, cannot be read.
        return _read(dialect, head, _WHOLE_TURNS)
    return call


def _read(dialect: Dialect, head: bytes, depth: int) -> LlmCall | Reason:
    closed = close(head, depth)
    return Reason.BODY_UNREADABLE if closed is None else parse_call(dialect, closed)


def close(head: bytes, depth: int = _ALL) -> bytes | None:
    """A JSON object, broken off where it makes sense and ended there; None for what is no object.

    `depth` is how deep it looks for what it can use of a value that the head breaks off.
    """
    if head.lstrip()[:1] != b"{":
        return None
    last = _last_member(head, 0)
    if last is None:
        return b"{}"
    end = _end_of_object(head, 0, last, _CONVERSATION, depth)
    return head[: end.at] + end.closing


def removals(head: bytes) -> list[Edit]:
    """The edits that take inline policies out, where the head holds all of them: see `inline.removals`."""
    last = _last_member(head, 0) if head.lstrip()[:1] == b"{" else None
    return [] if last is None else [edit for edit in inline.removals(head) if edit.end <= last.start]


def _last_member(head: bytes, at: int) -> spans.Member | None:
    """The member of an object that the head may break off."""
    last = None
    for member in spans.members(head, at):
        last = member
    return last


def _end_of_object(head: bytes, at: int, last: spans.Member, kept: frozenset[str], depth: int) -> End:
    """Ends an object without its last member, or with what makes sense of it."""
    end = _end_of(head, last.value_start, depth - 1) if last.key in kept else None
    end = end or End(_without_comma(head, at, last.start), b"")
    return End(end.at, end.closing + b"}")


def _end_of(head: bytes, at: int, depth: int) -> End | None:
    """Ends a value that the head may break off; None where that leaves nothing."""
    if depth == 0:
        return None
    match head[at : at + 1]:
        case b'"':
            return End(_end_of_text(head, at), b'"')
        case b"[":
            return _end_of_array(head, at, depth)
        case b"{":
            last = _last_member(head, at)
            return None if last is None else _end_of_object(head, at, last, _TEXT, depth)
        case _:
            return None


def _end_of_array(head: bytes, at: int, depth: int) -> End:
    position = at + 1
    while True:
        begin = position
        match = TO_BRACKET.match(head, position)
        position = match.end() if match else position
        byte = head[position : position + 1]
        if byte in (b"{", b"["):
            end = spans.end_of_value(head, position)
            if end < len(head):
                position = end
                continue
        elif byte == b"":
            return End(_end_of_scalars(head, begin), b"]")
        elif byte != b'"':
            return End(position, b"]")
        cut = _end_of(head, position, depth - 1) or End(_without_comma(head, at, position), b"")
        return End(cut.at, cut.closing + b"]")


def _end_of_scalars(head: bytes, begin: int) -> int:
    """Where the last of some scalars and strings ends that surely is whole: at a quote, or before a comma."""
    if head[begin:].rstrip()[-1:] in (b'"', b""):
        return len(head)
    return max(begin, head.rfind(b",", begin))


def _end_of_text(head: bytes, at: int) -> int:
    """Where the last whole character of a string ends."""
    match = _WHOLE_CHARACTERS.match(head, at)
    end = match.end() if match else at + 1
    for back in range(1, min(4, end - at)):
        byte = head[end - back]
        if byte & 0xC0 != 0x80:
            # The first byte of a character tells how many there are.
            needed = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return end if needed <= back else end - back
    return end


def _without_comma(head: bytes, begin: int, end: int) -> int:
    """Where what stands before `end` ends, without the comma that makes something follow."""
    return begin + len(head[begin:end].rstrip().removesuffix(b","))
