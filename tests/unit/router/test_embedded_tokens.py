"""What the embedded router's encoder gets to see of a conversation."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from ext_proc.router.embedded.tokens import Tokenizing, Tokens
from ext_proc.router.embedded.tuning import SHIPPED, TOKENIZER_FILE
from ext_proc.router.embedded.turns import Segment, Turn

TOKENIZING = Tokenizing(SHIPPED / TOKENIZER_FILE, head_share=0.6)
READING = Tokenizer.from_file(str(SHIPPED / TOKENIZER_FILE))


def read(tokens: Tokens) -> str:
    return READING.decode(tokens.ids, skip_special_tokens=False)


def turn(text: str, segment: Segment = Segment.NEWEST, max_tokens: int = 16) -> Turn:
    return Turn(text, segment, max_tokens)


def test_turns_stand_in_their_order_with_separators_and_say_whose_they_are() -> None:
    turns = [turn("book it"), turn("which one?", Segment.ANSWER), turn("flights to rome", Segment.EARLIER)]
    tokens = TOKENIZING.turns(turns, 64)
    assert read(tokens) == "[CLS] book it [SEP] which one? [SEP] flights to rome [SEP]"
    assert tokens.segments == [0] * 4 + [1] * 4 + [2] * 4


def test_a_long_turn_keeps_its_head_and_its_tail() -> None:
    tokens = TOKENIZING.turns([turn("one two three four five six seven eight nine ten", max_tokens=5)], 64)
    assert read(tokens) == "[CLS] one two three nine ten [SEP]"


def test_later_turns_get_what_room_is_left_and_none_when_it_says_nothing() -> None:
    turns = [turn("a b c d e f"), turn("g h i j k l", Segment.ANSWER), turn("m n o", Segment.EARLIER)]
    tokens = TOKENIZING.turns(turns, 14)
    assert read(tokens) == "[CLS] a b c d e f [SEP] g h i k l [SEP]"
    assert len(tokens.ids) == len(tokens.segments) == 14


@pytest.mark.parametrize("limit", [8, 64])
def test_no_more_tokens_than_asked_for(limit: int) -> None:
    turns = [turn("word " * 500, max_tokens=64), turn("x" * 5000, Segment.ANSWER, 24)]
    assert len(TOKENIZING.turns(turns, limit).ids) <= limit


def test_a_policys_text_is_a_segment_of_its_own() -> None:
    tokens = TOKENIZING.text("travel: trips", Segment.POLICY, 64)
    assert read(tokens) == "[CLS] travel : trips [SEP]"
    assert set(tokens.segments) == {Segment.POLICY}
