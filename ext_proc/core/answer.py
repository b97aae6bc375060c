"""What a routing language model wrote, to the name it means.

Models answer near-JSON: single quotes, code fences, a brace too few, words around it. What is clear
counts; what is not is a failure of the router, never of the request. Quotes are not swapped wholesale,
which would break a name with an apostrophe.
"""

from __future__ import annotations

import ast
import json
import re

from ext_proc.core.prompt import OTHER
from ext_proc.core.types import Policy

MAX_CHARS = 2_000
"""An answer is a few words: what is longer is no answer, and is not searched."""

_OBJECT = re.compile(r"\{[^{}]*\}?", re.DOTALL)
_VALUE = re.compile(r"""["']route["']\s*:\s*\[?\s*(?P<value>[^\]}\n]*)""")


class Garbled(Exception):
    """No name could be read."""


def name_of(text: str, policies: tuple[Policy, ...]) -> str | None:
    """The policy that an answer names; None for `other`, for nothing, and for a name nobody knows.

    A list counts by its first entry (Plano-Orchestrator answers one). Errors: Garbled.
    """
    named = _named(text[:MAX_CHARS])
    names = {policy.name for policy in policies}
    if named in names:
        return named
    folded = {name.casefold(): name for name in names}
    return folded.get(named.strip().casefold())


def _named(text: str) -> str:
    for match in _OBJECT.finditer(text):
        value = _loaded(match[0])
        if isinstance(value, dict) and "route" in value:
            return _first(value["route"])
    loose = _VALUE.search(text)
    if loose is None:
        raise Garbled
    return _unquoted(loose["value"])


def _loaded(text: str) -> object:
    for candidate in (text, text.rstrip() + "}", text.rstrip() + "]}"):
        try:
            return json.loads(candidate)
        except ValueError:
            pass
        try:
            # Python's literals are what a model writes that has seen much Python: {'route': "it's"}.
            return ast.literal_eval(candidate)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    return None


def _first(route: object) -> str:
    if isinstance(route, list):
        route = route[0] if route else None
    if route is None:
        return OTHER
    if not isinstance(route, str):
        raise Garbled
    return route or OTHER


def _unquoted(value: str) -> str:
    value = value.strip().rstrip(",").strip()
    if value[:1] in ("'", '"'):
        quote = value[0]
        end = value.find(quote, 1)
        # A quote inside a word is an apostrophe.
        while 0 < end < len(value) - 1 and value[end + 1].isalnum():
            end = value.find(quote, end + 1)
        value = value[1:end] if end > 0 else value[1:]
    if not value or value == "null":
        return OTHER
    return value
