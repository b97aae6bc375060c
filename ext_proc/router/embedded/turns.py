"""Which texts of a conversation are encoded, how much of each, and what each weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ext_proc.core.types import Message
from ext_proc.router.embedded.tuning import Tuning

_CHARS_PER_TOKEN = 4
"""English prose under WordPiece. It only weighs short turns against long ones."""
_CUT_CHARS_PER_TOKEN = 24
"""Characters kept per token wanted: prose takes 4, indented code up to 20. Tokenising costs 0.3 µs each."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One text to encode, no longer than needed for its tokens. `max_tokens` includes the special ones."""

    text: str
    weight: float
    max_tokens: int


def choose_turns(messages: Sequence[Message], tuning: Tuning) -> tuple[Turn, ...]:
    """Choose the newest user turn, the answer it follows, and the user turns before, newest first.

    Only text of users and assistants counts; empty without any user's text. The cost is bounded by
    the number of messages, not by their length.
    """
    turns: list[Turn] = []
    weight, users = 1.0, 0
    for message in reversed(messages):
        if message.role == "user" and not _is_blank(message.text):
            limit = tuning.max_tokens_earlier if users else tuning.max_tokens
            turns.append(_turn(message.text, weight, limit, tuning))
            weight *= tuning.turn_decay
            users += 1
            if users == tuning.user_turns:
                break
        elif message.role == "assistant" and users == 1 and not _is_blank(message.text):
            turns.append(_turn(message.text, tuning.assistant_weight, tuning.max_tokens_earlier, tuning))
    return tuple(turns)


def cut_middle(text: str, max_tokens: int, head_share: float) -> str:
    """Leave out what no token budget will reach, so that a text of megabytes costs no more than a page.

    Cutting twice is cutting once.
    """
    limit = max_tokens * _CUT_CHARS_PER_TOKEN
    if len(text) <= limit:
        return text
    head = round(limit * head_share)
    return f"{text[:head]} {text[len(text) - limit + head + 1 :]}"


def _turn(text: str, weight: float, max_tokens: int, tuning: Tuning) -> Turn:
    tokens = min(len(text) // _CHARS_PER_TOKEN, tuning.max_tokens) + 1
    text = cut_middle(text, max_tokens, tuning.head_share)
    return Turn(text, weight * tokens / (tokens + tuning.short_turn_tokens), max_tokens)


def _is_blank(text: str) -> bool:
    return not text or text.isspace()
