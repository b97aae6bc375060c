"""How many tokens an answer says it took, in the words of each API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from ext_proc.core.types import Price

_MILLION = 1_000_000
_MAX_TOKENS = 1 << 40
_MAX_TRIES = 16
"""How often a tail may name "usage" before the true one: a bound, since each try parses up to the end."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the prompt, cached ones included, and of the answer. None: the answer does not say."""

    tokens_in: int | None = None
    tokens_out: int | None = None

    def updated(self, newer: Usage) -> Usage:
        """This with what `newer` knows in its place."""
        return Usage(
            self.tokens_in if newer.tokens_in is None else newer.tokens_in,
            self.tokens_out if newer.tokens_out is None else newer.tokens_out,
        )


UNKNOWN = Usage()


def read_usage(usage: object) -> Usage:
    """A usage block of chat completions and completions, of responses, or of Anthropic messages.

    Anthropic counts what it read from or wrote to its cache beside `input_tokens`; the others within.
    """
    if not isinstance(usage, dict):
        return UNKNOWN
    tokens_in = _count(usage, "prompt_tokens")
    if tokens_in is None and (fresh := _count(usage, "input_tokens")) is not None:
        cached = (
            _count(usage, "cache_creation_input_tokens") or 0,
            _count(usage, "cache_read_input_tokens") or 0,
        )
        tokens_in = fresh + sum(cached)
    tokens_out = _count(usage, "completion_tokens")
    return Usage(tokens_in, _count(usage, "output_tokens") if tokens_out is None else tokens_out)


def usage_in_tail(tail: bytes) -> Usage:
    """The usage block of a JSON object of which only the end is here.

    A member is the object's own, and not of something inside it or in a text, if what stands from its
    key to the end is the rest of just one object. So nothing is guessed.
    """
    at = len(tail)
    for _ in range(_MAX_TRIES):
        at = tail.rfind(b'"usage"', 0, at)
        if at < 0:
            return UNKNOWN
        try:
            fields = orjson.loads(b"{" + tail[at:])
        except orjson.JSONDecodeError:
            continue
        return read_usage(fields["usage"])
    return UNKNOWN


def cost_of(price: Price | None, usage: Usage) -> float | None:
    """What an answer cost. None without a price, or when either number is not known."""
    if price is None or usage.tokens_in is None or usage.tokens_out is None:
        return None
    return (
        usage.tokens_in * price.input_per_million + usage.tokens_out * price.output_per_million
    ) / _MILLION


def _count(usage: dict[str, Any], key: str) -> int | None:
    value = usage.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_TOKENS:
        return value
    return None
