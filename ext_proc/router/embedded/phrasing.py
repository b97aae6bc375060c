"""The texts that stand for a policy."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ext_proc.core.types import Policy

_MARK = re.compile(r"\{(?:name|description|domain)\}")
_BETWEEN = re.compile(r"[,;:()]|\.\s|\b(?:and|or|such as|including)\b")
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])")
_SHORTEST = 3
"""Characters of an item."""
_MOST = 12
"""Items of one policy; what a description lists after them is in its whole text all the same."""


def phrase(policy: Policy, phrasings: Sequence[str]) -> list[str]:
    """The ways to state a policy, without those that name what it lacks: a description, a domain."""
    parts = {
        "{name}": readable(policy.name),
        "{description}": policy.description.strip(),
        "{domain}": policy.domain or "",
    }
    lacking = [mark for mark, part in parts.items() if not part]
    usable = [phrasing for phrasing in phrasings if not any(mark in phrasing for mark in lacking)]
    # One pass, because a name may hold braces.
    return [_MARK.sub(lambda match: parts[match[0]], phrasing) for phrasing in usable] or [policy.name]


def items(name: str, description: str) -> list[str]:
    """What a description lists, each item after the name; nothing where there is no list."""
    found = [part.strip(" \t\r\n.'\"") for part in _BETWEEN.split(description)]
    listed = list(dict.fromkeys(part for part in found if len(part) >= _SHORTEST))
    if len(listed) < 2:
        return []
    return [f"{name}: {part}" if name else part for part in listed[:_MOST]]


def readable(name: str) -> str:
    """Names are often identifiers, so `_` and `-` become spaces, and "BookFlight" becomes "Book Flight"."""
    return _WORD_STARTS.sub(" ", name.replace("_", " ").replace("-", " ")).strip()
