"""Which texts of a conversation are encoded, in which order, and how much of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from ext_proc.core.types import Message
from ext_proc.router.embedded.tuning import Tuning

_CUT_CHARS_PER_TOKEN = 24
"""Characters kept per token wanted: prose takes 4, indented code up to 20. Tokenising costs 0.3 µs each."""


class Segment(IntEnum):
    """What a text is to the encoder: the rows of its segment table."""

    NEWEST = 0
    ANSWER = 1
    EARLIER = 2
    POLICY = 3


@dataclass(frozen=True, slots=True)
class Turn:
    """One text to encode, no longer than needed for its tokens, the separator after it not counted."""

    text: str
    segment: Segment
    max_tokens: int


def choose_turns(messages: Sequence[Message], tuning: Tuning) -> tuple[Turn, ...]:
    """Choose the newest user turn, the answer it follows, and the user turns before, newest first.

    Only text of users and assistants counts; empty without any user's text. The cost is bounded by
    the number of messages, not by their length.
    """
    turns: list[Turn] = []
    users = 0
    for message in reversed(messages):
        if not message.text or message.text.isspace():
            continue
        if message.role == "user":
            segment = Segment.EARLIER if users else Segment.NEWEST
            turns.append(_turn(message.text, segment, tuning))
            users += 1
            if users == tuning.user_turns:
                break
        elif message.role == "assistant" and len(turns) == users == 1:
            turns.append(_turn(message.text, Segment.ANSWER, tuning))
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


def _turn(text: str, segment: Segment, tuning: Tuning) -> Turn:
    limit = tuning.max_tokens if segment is Segment.NEWEST else tuning.max_tokens_earlier
    return Turn(cut_middle(text, limit, tuning.head_share), segment, limit)
