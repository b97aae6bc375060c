"""Where things stand in JSON bytes, so that one value can be replaced and every other byte kept.

A JSON parser would lose the client's bytes: duplicate keys, escapes, number formats, white space.
This scanner finds the members of one object by position and never interprets values. It expects
bytes that a strict JSON parser has accepted; on anything else its answer means nothing, but it
still ends.

All patterns are possessive (`++`, `*+`): a megabyte of text is one step and nothing backtracks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_KEY = re.compile(rb"[\s,{]*+(" + _STRING + rb")\s*+:\s*+", re.DOTALL)
_SCALAR = re.compile(_STRING + rb"|[^\s,\]}]++", re.DOTALL)
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+", re.DOTALL)
_MODEL_FIRST = re.compile(rb'\s*+\{\s*+"model"\s*+:\s*+("[^"\\]*+")')


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


def members(body: bytes, at: int = 0) -> Iterator[Member]:
    """Walk the members of the object that begins at or after `at`, duplicates included, in order."""
    position = body.index(b"{", at)
    while match := _KEY.match(body, position):
        value_start = match.end()
        position = _end_of_value(body, value_start)
        yield Member(_text(match[1]), match.start(1), value_start, position)


def find(body: bytes, key: str, at: int = 0) -> list[Member]:
    """Every member called `key` of the object at `at`: JSON allows a name to come twice."""
    return [member for member in members(body, at) if member.key == key]


def find_model(body: bytes) -> list[Member]:
    """Every top-level `model` member.

    When the name comes first, stands nowhere else and cannot be hidden behind a `\\u` escape, there
    is no need to walk the rest of the body.
    """
    first = _MODEL_FIRST.match(body)
    if first and body.count(b'"model"') == 1 and b"\\u" not in body:
        return [Member("model", body.index(b'"model"'), first.start(1), first.end(1))]
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
    is_empty = body[_skip_space(body, at) :][:1] == b"}"
    text = json.dumps(key).encode() + b":" + value + (b"" if is_empty else b",")
    return Edit(at, at, text)


def apply(body: bytes, edits: list[Edit]) -> bytes:
    """The body with all edits made. Edits may touch but not overlap."""
    pieces: list[bytes] = []
    position = 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        pieces += (body[position : edit.start], edit.replacement)
        position = edit.end
    pieces.append(body[position:])
    return b"".join(pieces)


def _end_of_value(body: bytes, at: int) -> int:
    if body[at : at + 1] not in (b"{", b"["):
        match = _SCALAR.match(body, at)
        return match.end() if match else len(body)
    depth = 0
    while True:
        depth += 1 if body[at : at + 1] in (b"{", b"[") else -1
        at += 1
        if depth == 0:
            return at
        match = _TO_BRACKET.match(body, at)
        at = match.end() if match else len(body)
        if at >= len(body):
            return len(body)


def _text(quoted: bytes) -> str:
    if b"\\" in quoted:
        return str(json.loads(quoted))
    return quoted[1:-1].decode("utf-8", "replace")


def _skip_space(body: bytes, at: int) -> int:
    while body[at : at + 1] in (b" ", b"\t", b"\r", b"\n"):
        at += 1
    return at
