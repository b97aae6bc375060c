"""The model of a body that passes in pieces: replaced in place, with nothing held.

What `rewrite.set_model` does to bytes that are all there, but for one thing: a body without a `model`
gets one as its last member and not as its first, because only its end tells. Like the scanner in
`spans.py` it expects JSON that a parser would accept; what is none passes as it is from where that shows.
"""

from __future__ import annotations

import re
from enum import Enum, auto

import orjson

from ext_proc.core.spans import MAX_MARKS, TO_BRACKET

_SPACE = re.compile(rb"\s*+")
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_REST_OF_SCALAR = re.compile(rb"[^\s,\]}]*+")
_MAX_KEY_BYTES = len("model") * len(b"\\u0000")
"""What `model` takes with every letter escaped: a longer key is another one."""


class _Expects(Enum):
    """What comes next in the top-level object."""

    KEY = auto()
    COLON = auto()
    VALUE = auto()
    COMMA = auto()


class _Edit(Enum):
    """What becomes of the bytes at and after a position."""

    NONE = auto()
    REPLACE = auto()
    KEEP_AGAIN = auto()
    INSERT = auto()


class ModelSplice:
    """Feed it a body piece by piece; what it gives back is that body with `model` as its model.

    A body that is mostly structure (`spans.is_intricate`) passes unchanged from where that shows.
    """

    __slots__ = (
        "_depth",
        "_escaped",
        "_expects",
        "_found",
        "_in_scalar",
        "_in_string",
        "_is_empty",
        "_is_model",
        "_is_over",
        "_key",
        "_marks",
        "_replaces",
        "_value",
    )

    def __init__(self, model: str) -> None:
        self._value = orjson.dumps(model)
        self._expects = _Expects.KEY
        self._depth = self._marks = 0
        self._key: bytes | None = None
        self._in_string = self._in_scalar = self._escaped = False
        self._is_model = self._replaces = self._found = self._is_over = False
        self._is_empty = True

    def feed(self, piece: bytes) -> bytes:
        """The next piece, edited. Total, and linear in the piece's length."""
        if self._is_over:
            return piece
        out: list[bytes] = []
        at = kept = 0
        while at < len(piece) and not self._is_over:
            at, edit = self._step(piece, at)
            if edit is _Edit.REPLACE:
                out += (piece[kept:at], self._value)
            elif edit is _Edit.KEEP_AGAIN:
                kept = at
            elif edit is _Edit.INSERT:
                out += (piece[kept:at], b"" if self._is_empty else b",", b'"model":', self._value)
                kept = at
        if self._is_over and self._replaces:
            self._replaces, kept = False, at
        if not self._replaces:
            out.append(piece[kept:])
        return b"".join(out)

    def _step(self, piece: bytes, at: int) -> tuple[int, _Edit]:
        """Go on by one token, or by what this piece has of it."""
        if self._in_string:
            return self._through_string(piece, at)
        if self._in_scalar:
            return self._through_scalar(piece, at)
        if self._depth > 1:
            return self._through_nested(piece, at)
        at = _end(_SPACE, piece, at)
        if at == len(piece):
            return at, _Edit.NONE
        byte = piece[at : at + 1]
        if self._depth == 0:
            self._depth, self._is_over = 1, byte != b"{"
            return at + 1, _Edit.NONE
        if byte == b"}" and self._expects in (_Expects.KEY, _Expects.COMMA):
            return self._through_end(at)
        if self._expects is _Expects.VALUE:
            return self._begin_value(byte, at)
        return self._through_mark(byte, at)

    def _through_mark(self, byte: bytes, at: int) -> tuple[int, _Edit]:
        """A quote where a key is to begin, a colon, or a comma."""
        if self._expects is _Expects.KEY and byte == b'"':
            self._key, self._in_string, self._is_empty = b"", True, False
        elif self._expects is _Expects.COLON and byte == b":":
            self._expects = _Expects.VALUE
            self._count_mark()
        elif self._expects is _Expects.COMMA and byte == b",":
            self._expects = _Expects.KEY
        else:
            self._is_over = True
        return at + 1, _Edit.NONE

    def _begin_value(self, byte: bytes, at: int) -> tuple[int, _Edit]:
        if self._is_model and not self._replaces:
            self._replaces = self._found = True
            return at, _Edit.REPLACE
        if byte == b'"':
            self._in_string = True
        elif byte in (b"{", b"["):
            self._depth = 2
            self._count_mark()
        else:
            self._in_scalar = True
            return at, _Edit.NONE
        return at + 1, _Edit.NONE

    def _end_value(self, at: int) -> tuple[int, _Edit]:
        self._expects, self._is_model = _Expects.COMMA, False
        if not self._replaces:
            return at, _Edit.NONE
        self._replaces = False
        return at, _Edit.KEEP_AGAIN

    def _through_string(self, piece: bytes, at: int) -> tuple[int, _Edit]:
        end = _end(_REST_OF_STRING, piece, at + 1 if self._escaped else at)
        # A piece may end between a backslash and what it escapes.
        self._escaped = piece[end : end + 1] == b"\\"
        end += self._escaped
        if self._key is not None:
            self._key += piece[at : min(end, at + 1 + _MAX_KEY_BYTES)]
            self._key = self._key[: 1 + _MAX_KEY_BYTES]
        if end >= len(piece):
            return len(piece), _Edit.NONE
        self._in_string = False
        if self._key is not None:
            self._is_model, self._key = _is_model(self._key), None
            self._expects = _Expects.COLON
        elif self._depth == 1:
            return self._end_value(end + 1)
        return end + 1, _Edit.NONE

    def _through_scalar(self, piece: bytes, at: int) -> tuple[int, _Edit]:
        at = _end(_REST_OF_SCALAR, piece, at)
        if at == len(piece):
            return at, _Edit.NONE
        self._in_scalar = False
        return self._end_value(at)

    def _through_nested(self, piece: bytes, at: int) -> tuple[int, _Edit]:
        """Inside of a value: up to its end, its next bracket, or a string that this piece breaks off."""
        at = _end(TO_BRACKET, piece, at)
        byte = piece[at : at + 1]
        if byte == b'"':
            self._in_string = True
        elif byte in (b"{", b"["):
            self._depth += 1
            self._count_mark()
        elif byte:
            self._depth -= 1
            if self._depth == 1:
                return self._end_value(at + 1)
        return at + len(byte), _Edit.NONE

    def _through_end(self, at: int) -> tuple[int, _Edit]:
        """The end of the top-level object."""
        if not self._found:
            self._found = True
            return at, _Edit.INSERT
        self._is_over = True
        return at + 1, _Edit.NONE

    def _count_mark(self) -> None:
        self._marks += 1
        self._is_over = self._marks > MAX_MARKS


def _end(pattern: re.Pattern[bytes], piece: bytes, at: int) -> int:
    """Where a pattern that also matches nothing ends."""
    match = pattern.match(piece, at)
    return match.end() if match else at


def _is_model(key: bytes) -> bool:
    if b"\\" not in key:
        return key == b"model"
    try:
        return bool(orjson.loads(b'"' + key + b'"') == "model")
    except orjson.JSONDecodeError:
        return False
