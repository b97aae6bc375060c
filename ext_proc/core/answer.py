"""What a routing language model wrote, to the name it means.

Models answer near-JSON: single quotes, code fences, a brace too few, words around it, or the name
alone. What is clear counts; what is not is a failure of the router, never of the request. Quotes are
not swapped wholesale, which would break a name with an apostrophe.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ext_proc.core.prompt import OTHER, Variant
from ext_proc.core.types import Policy

MAX_CHARS = 2_000
"""An answer is a few words: what is longer is no answer, and is not searched."""

_MAX_QUOTES = 16
"""How many apostrophes a name may have. Each end that a string could have costs a look."""

_KEY = re.compile(r"""(?:(["'])route\1|\{\s*route)\s*:\s*""")
_LIST = re.compile(r"\[\s*")
_BARE_VALUE = re.compile(r"[^\]},\n]*")
_ESCAPED_QUOTE = re.compile(r"""\\(['"])""")
_NOTHING = frozenset({"", "null", "none"})
_AROUND_A_NAME = "`'\" \t\r\n."
_STRING = json.JSONDecoder()


class Garbled(Exception):
    """No name could be read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A name, None for none of the policies, and where in the text it was read.

    `text[start:end]` is what was decided token by token: a list's bracket, both quotes and the name.
    """

    name: str | None
    start: int
    end: int


def read(text: str, policies: tuple[Policy, ...]) -> Answer:
    """The policy that an answer names, and where; None for `other`, for nothing, and for a name nobody knows.

    A list counts by its first entry (Plano-Orchestrator answers one). Errors: Garbled.
    """
    text = text[:MAX_CHARS]
    names = _Names(policies)
    for key in _KEY.finditer(text):
        try:
            return _value(text, key.end(), names)
        except Garbled:
            continue
    return _name_alone(text, names)


def written(name: str | None, variant: Variant = Variant.ARCHGW) -> str:
    """The answer that a model of this family gives for a policy, or for none of them."""
    if variant is Variant.PLANO_ORCHESTRATOR:
        return json.dumps({"route": [] if name is None else [name]}, ensure_ascii=False)
    return json.dumps({"route": OTHER if name is None else name}, ensure_ascii=False)


class _Names:
    """What may be answered. Case and outer white space are forgiven."""

    def __init__(self, policies: tuple[Policy, ...]) -> None:
        self._names = {policy.name for policy in policies} - {OTHER}
        self._folded: dict[str, str | None] = {OTHER: None}
        for policy in policies:
            self._folded.setdefault(policy.name.strip().casefold(), policy.name)

    def __contains__(self, text: str) -> bool:
        return text in self._names or text.strip().casefold() in self._folded

    def of(self, text: str) -> str | None:
        return text if text in self._names else self._folded.get(text.strip().casefold())


def _value(text: str, start: int, names: _Names) -> Answer:
    """What stands after the key: a string, a list's first string, or nothing."""
    opening = _LIST.match(text, start)
    at = opening.end() if opening else start
    if text[at : at + 1] in ("'", '"'):
        return _quoted(text, start, at, names)
    bare = _BARE_VALUE.match(text, at)
    value = bare[0].strip() if bare else ""
    end = at + len(value)
    if value.casefold() in _NOTHING and end < len(text):
        return Answer(None, start, end + 1 if opening and text[end] == "]" else end)
    if value in names:
        return Answer(names.of(value), start, end)
    raise Garbled


def _quoted(text: str, start: int, at: int, names: _Names) -> Answer:
    """A string as JSON has it, or else as far as its quotes tell."""
    try:
        value, end = _STRING.raw_decode(text, at)
        return Answer(names.of(value), start, end)
    except ValueError:
        pass
    line_end = text.find("\n", at)
    line = text[at : line_end if line_end > 0 else len(text)]
    ends = [index for index in range(1, len(line)) if line[index] == line[0] and line[index - 1] != "\\"]
    ends = ends[:_MAX_QUOTES]
    for index in ends:
        if (value := _unescaped(line[1:index])) in names:
            return Answer(names.of(value), start, at + index + 1)
    for index in ends:
        # A quote inside a word is an apostrophe.
        if not line[index + 1 : index + 2].isalnum():
            return Answer(None, start, at + index + 1)
    # Cut off: no name, unless what is left of it is a whole one.
    value = line[1:].rstrip(" \t\r,]}`")
    if value in names:
        return Answer(names.of(value), start, at + 1 + len(value))
    raise Garbled


def _unescaped(value: str) -> str:
    return _ESCAPED_QUOTE.sub(r"\1", value)


def _name_alone(text: str, names: _Names) -> Answer:
    for value in (text.strip(), text.strip(_AROUND_A_NAME)):
        if value and value in names:
            start = text.find(value)
            return Answer(names.of(value), start, start + len(value))
    raise Garbled
