"""What a judge is asked, and what it may say."""

from __future__ import annotations

import orjson
import pytest

from ext_proc.core.judging import MAX_ANSWER_CHARS, read_verdict, request_body, said
from ext_proc.core.observation import Preference


def asked(*, swapped: bool) -> str:
    body = request_body("m", "Q?", "from the primary", "from the shadow", swapped=swapped)
    assert body["model"] == "m"
    text: str = body["messages"][1]["content"]
    return text


def test_the_order_of_the_answers_is_the_callers_and_their_names_are_not_told() -> None:
    plain, swapped = asked(swapped=False), asked(swapped=True)
    assert plain.index("from the primary") < plain.index("from the shadow")
    assert swapped.index("from the shadow") < swapped.index("from the primary")
    for text in (plain, swapped):
        assert "<conversation>\nQ?\n</conversation>" in text


def test_a_long_answer_is_cut() -> None:
    body = request_body("m", "Q?", "x" * 99_999, "y", swapped=False)
    assert body["messages"][1]["content"].count("x") == MAX_ANSWER_CHARS


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("A", Preference.PRIMARY),
        ("b", Preference.SHADOW),
        (" TIE.\n", Preference.TIE),
        ("Verdict: B", Preference.SHADOW),
        ("**A**", Preference.PRIMARY),
        ("[[B]]", Preference.SHADOW),
        ("Answer B repeats itself, so my verdict is [[A]]", Preference.PRIMARY),
        ("They are equal", Preference.TIE),
        ("Answer B", Preference.SHADOW),
    ],
)
def test_a_verdict_is_mapped_back_to_whose_answer_it_was(text: str, plain: Preference) -> None:
    other = {Preference.PRIMARY: Preference.SHADOW, Preference.SHADOW: Preference.PRIMARY}
    assert read_verdict(text, swapped=False) is plain
    assert read_verdict(text, swapped=True) is other.get(plain, Preference.TIE)


@pytest.mark.parametrize("text", ["", "I will not say.", "42", "\x00"])
def test_words_that_say_nothing_are_no_verdict(text: str) -> None:
    assert read_verdict(text, swapped=False) is None


def test_what_a_judge_said_is_read_from_a_chat_completion_alone() -> None:
    assert said(orjson.dumps({"choices": [{"message": {"content": "A"}}]})) == "A"
    for data in (b"", b"[]", b'{"error": {}}', b"\xff"):
        assert said(data) is None
