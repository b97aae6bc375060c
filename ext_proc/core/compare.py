"""Two answers to one request, side by side. Pure: what needs a model is asked elsewhere and added."""

from __future__ import annotations

import re
from typing import Any

import orjson

from ext_proc.core.observation import Comparison, Observation
from ext_proc.core.reply import Reply, ToolCall

_SPACES = re.compile(r"\s+")
_FENCE = re.compile(r"\A```(?:json)?[^\S\n]*\n(.*?)\n?```\Z", re.DOTALL)
_HEAD_CHARS = 300
"""Where a refusal stands: a long answer that regrets something later is none."""

_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:(?:very |really |so )?sorry|afraid),? (?:but )?(?:i|that|this|we)\b"
    r"|i (?:can(?:no|')t|can not|won't|will not|must decline)\b|i(?:'m| am) (?:unable|not able) to"
    r"|(?:we|i) (?:have to|must) (?:decline|refuse)"
    r"|as an ai\b|unable to (?:assist|help|comply)|(?:can't|cannot) (?:assist|help|comply)"
    r"|against (?:my|our) (?:guidelines|policy|policies|programming))",
    re.IGNORECASE,
)


def compare(
    primary: Observation, shadow: Observation, replies: tuple[Reply | None, Reply | None], at: float
) -> Comparison:
    """What can be told without a model. A failed answer, or one that was not kept, has nothing to compare."""
    one, other = replies
    if one is None or other is None or not (_is_whole(primary) and _is_whole(shadow)):
        return Comparison(primary, shadow, at)
    return Comparison(
        primary,
        shadow,
        at,
        exact=(_plain(one.text), _tools(one)) == (_plain(other.text), _tools(other)),
        length_ratio=len(other.text) / len(one.text) if one.text else None,
        structured_equal=_structured_equal(one, other),
        primary_refused=is_refusal(one),
        shadow_refused=is_refusal(other),
    )


def has_texts(comparison: Comparison, one: Reply, other: Reply) -> bool:
    """Whether two answers say something that a model can compare."""
    return comparison.exact is not None and bool(one.text.strip()) and bool(other.text.strip())


def is_refusal(reply: Reply) -> bool:
    """Whether an answer declines: as its API says, or by how it begins. A heuristic, and for English."""
    if reply.refused:
        return True
    head = reply.text[:_HEAD_CHARS].replace("\u2019", "'")
    return not reply.tools and _REFUSAL.search(head) is not None


def _is_whole(observation: Observation) -> bool:
    return 200 <= observation.status < 300 and not observation.broken and not observation.cut


def _structured_equal(one: Reply, other: Reply) -> bool | None:
    """Whether tool calls and JSON are the same; None unless both answers have something of the kind."""
    equals: list[bool] = []
    if one.tools or other.tools:
        equals.append(_tools(one) == _tools(other))
    first, second = _json_in(one.text), _json_in(other.text)
    if first is not None and second is not None:
        equals.append(first == second)
    elif (first is None) != (second is None):
        equals.append(False)
    return all(equals) if equals else None


def _tools(reply: Reply) -> list[tuple[str, Any]]:
    """Tool calls, each with its arguments as data; their order does not count."""
    calls = [(tool.name, _arguments(tool)) for tool in reply.tools]
    return sorted(calls, key=repr)


def _arguments(tool: ToolCall) -> Any:
    try:
        return orjson.loads(tool.arguments or "{}")
    except orjson.JSONDecodeError:
        return tool.arguments


def _json_in(text: str) -> Any:
    """The object or list that a text is, in a code fence or not. None for any other text."""
    text = text.strip()
    fenced = _FENCE.match(text)
    try:
        value = orjson.loads(fenced[1] if fenced else text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return None
    return value if isinstance(value, dict | list) else None


def _plain(text: str) -> str:
    return _SPACES.sub(" ", text).strip()
