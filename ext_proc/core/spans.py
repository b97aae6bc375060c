"""Where things stand in JSON bytes, so that one value can be replaced and every other byte kept.

A JSON parser would lose the client's bytes: duplicate keys, escapes, number formats, white space.
This scanner finds the members of one object by position and never interprets values. It expects
bytes that a strict JSON parser has accepted, or the head of such; on anything else its answer means
nothing, but it still ends.

All patterns are possessive (`++`, `*+`): a megabyte of text is one step and nothing backtracks. Each
bracket and each member is a step too, of about a microsecond: `is_intricate` bounds how many there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_KEY = re.compile(rb"[\s,{]*+(" + _STRING + rb")\s*+:\s*+", re.DOTALL)
_SCALAR = re.compile(_STRING + rb"|[^\s,\]}]++", re.DOTALL)
_EMPTY_FROM = re.compile(rb"\s*+\}")
# The empty alternative changes nothing, but for Python before 3.11.5: there a possessive group whose last
# round fails half-way, at a string that does not end, would keep what that round had read (gh-106052).
TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb"|)*+", re.DOTALL)
_AFTER_MODEL = re.compile(rb'"model"\s*+:\s*+(' + _STRING + rb")", re.DOTALL)

MAX_MARKS = 500_000
"""How many brackets open and colons stand in a body that is still read. A body of 32 MiB that is nothing
else would hold the event loop for many seconds and a gigabyte of memory, at 26 bytes of it per byte; a
conversation of 5 MB has about 100,000."""
_PIECE_BYTES = 64 << 10
"""What is searched for marks at a time: little enough to stay in a processor's own memory."""


@dataclass(frozen=True, slots=True)
class Member:
    """One `"key": value` of an object. `start` is the key's opening quote, `end` is past the value."""

    key: str
    start: int
    value_start: int
    end: int


@dataclass(frozen=True, slots=True)
class Edit:
    """Put `replacement` where the bytes from `start` up to `end` were."""

    start: int
    end: int
    replacement: bytes


def is_intricate(body: bytes, max_marks: int = MAX_MARKS) -> bool:
    """Whether reading this body could take far longer than its size says.

    What stands inside of strings counts too: telling it apart would be the work that this avoids. Text has
    few marks, over which `replace` leaps, where `count` would look at each byte three times.
    """
    marks = 0
    for at in range(0, len(body), _PIECE_BYTES):
        if marks + len(body) - at <= max_marks:
            return False
        piece = body[at : at + _PIECE_BYTES]
        marks += sum(len(piece) - len(piece.replace(mark, b"")) for mark in (b"{", b"[", b":"))
        if marks > max_marks:
            return True
    return False


def members(body: bytes, at: int = 0) -> Iterator[Member]:
    """Walk the members of the object that begins at or after `at`, duplicates included, in order."""
    position = body.index(b"{", at)
    while match := _KEY.match(body, position):
        value_start = match.end()
        position = end_of_value(body, value_start)
        yield Member(_text(match[1]), match.start(1), value_start, position)


def find(body: bytes, key: str, at: int = 0) -> list[Member]:
    """Every member called `key` of the object at `at`: JSON allows a name to come twice."""
    return [member for member in members(body, at) if member.key == key]


def find_model(body: bytes, *, is_text: bool) -> list[Member]:
    """Every top-level `model` member. `is_text`: a parser has found one there, with a string as its value.

    Then a body in which the name stands once, and which escapes none of its letters, has it there: no
    need to walk the megabytes around it.
    """
    if is_text:
        # From its end Python searches a megabyte for such a word three times as fast as from its beginning.
        start = body.rfind(b'"model"')
        stands_once = start >= 0 and body.rfind(b'"model"', 0, start + 6) < 0
        is_escaped = b"\\" in body and body.rfind(b"\\u006") >= 0
        if stands_once and not is_escaped and (found := _AFTER_MODEL.match(body, start)):
            return [Member("model", start, found.start(1), found.end(1))]
    return find(body, "model")


def removals(body: bytes, key: str, at: int = 0) -> list[Edit]:
    """The edits that take every member called `key` out of the object at `at`, commas included.

    A member goes together with what separates it from the next one; those at the end go together
    with what separates them from the last one that stays.
    """
    edits: list[Edit] = []
    stays_until: int | None = None
    goes_from: int | None = None
    end = 0
    for member in members(body, at):
        end = member.end
        if member.key == key:
            goes_from = member.start if goes_from is None else goes_from
            continue
        if goes_from is not None:
            edits.append(Edit(goes_from, member.start, b""))
        stays_until, goes_from = member.end, None
    if goes_from is not None:
        edits.append(Edit(goes_from if stays_until is None else stays_until, end, b""))
    return edits


def insertion(body: bytes, key: str, value: bytes) -> Edit:
    """The edit that puts a member first in the top-level object."""
    at = body.index(b"{") + 1
    is_empty = bool(_EMPTY_FROM.match(body, at))
    text = orjson.dumps(key) + b":" + value + (b"" if is_empty else b",")
    return Edit(at, at, text)


def apply(body: bytes, edits: list[Edit]) -> bytes:
    """The body with all edits made. Edits may touch but not overlap."""
    view = memoryview(body)  # A slice of it copies nothing: the body is copied once, by `join`.
    pieces: list[bytes | memoryview] = []
    position = 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        pieces += (view[position : edit.start], edit.replacement)
        position = edit.end
    pieces.append(view[position:])
    return b"".join(pieces)


def end_of_value(body: bytes, at: int) -> int:
    if body[at : at + 1] not in (b"{", b"["):
        match = _SCALAR.match(body, at)
        return match.end() if match else len(body)
    depth = 0
    while True:
        mark = body[at : at + 1]
        if mark == b'"':  # A string without an end: there is no more than a head of the body.
            return len(body)
        depth += 1 if mark in (b"{", b"[") else -1
        at += 1
        if depth == 0:
            return at
        match = TO_BRACKET.match(body, at)
        at = match.end() if match else len(body)
        if at >= len(body):
            return len(body)


def _text(quoted: bytes) -> str:
    if b"\\" in quoted:
        try:
            return str(orjson.loads(quoted))
        except orjson.JSONDecodeError:
            pass  # Of the head of a body no parser has seen the escapes.
    return quoted[1:-1].decode("utf-8", "replace")
