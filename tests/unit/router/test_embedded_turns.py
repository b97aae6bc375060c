"""Which texts of a conversation the embedded router reads."""

from __future__ import annotations

import pytest

from ext_proc.core.types import Message, Policy
from ext_proc.router.embedded.phrasing import items, phrase
from ext_proc.router.embedded.tuning import SHIPPED, read_tuning
from ext_proc.router.embedded.turns import Segment, choose_turns, cut_middle
from tests.unit.router.conversations import conversation

TUNING = read_tuning(SHIPPED)


def texts(*messages: Message) -> list[str]:
    return [turn.text for turn in choose_turns(messages, TUNING)]


def test_the_newest_question_comes_first_with_the_answer_that_it_follows() -> None:
    assert texts(*conversation("one", "two", "three", "four", "five")) == ["five", "four", "three", "one"]


def test_no_more_than_the_newest_user_turns_are_read() -> None:
    messages = [Message("user", str(number)) for number in range(10)]
    assert texts(*messages) == ["9", "8", "7", "6"]


def test_only_text_of_users_and_assistants_counts() -> None:
    messages = (
        Message("system", "you are a lawyer"),
        Message("developer", "be brief"),
        Message("user", "hello"),
        Message("tool", "42"),
        Message("assistant", ""),
        Message("user", " \n\t"),
    )
    assert texts(*messages) == ["hello"]


@pytest.mark.parametrize("messages", [(), (Message("assistant", "hi"),), (Message("system", "x"),)])
def test_without_a_users_text_there_is_nothing_to_read(messages: tuple[Message, ...]) -> None:
    assert texts(*messages) == []


def test_an_answer_that_nobody_replied_to_is_not_the_users_wish() -> None:
    assert texts(*conversation("write a poem", "The sea ...")) == ["write a poem"]


def test_each_turn_says_whose_it_is_and_the_newest_has_the_most_room() -> None:
    turns = choose_turns(conversation("one", "two", "three", "four", "five"), TUNING)
    assert [turn.segment for turn in turns] == [
        Segment.NEWEST,
        Segment.ANSWER,
        Segment.EARLIER,
        Segment.EARLIER,
    ]
    assert [turn.max_tokens for turn in turns] == [TUNING.max_tokens] + [TUNING.max_tokens_earlier] * 3


def test_of_several_answers_in_a_row_the_last_is_read() -> None:
    messages = [
        Message("user", "a"),
        Message("assistant", "b"),
        Message("assistant", "c"),
        Message("user", "d"),
    ]
    assert texts(*messages) == ["d", "c", "a"]


def test_a_huge_text_keeps_its_head_and_tail() -> None:
    text = "head " + "x" * 2_000_000 + " tail"
    (turn,) = choose_turns([Message("user", text)], TUNING)
    assert turn.text.startswith("head ")
    assert turn.text.endswith(" tail")
    assert len(turn.text) <= 2_000


@pytest.mark.parametrize("length", [0, 1, 1535, 1536, 1537, 1600, 9999])
def test_cutting_twice_is_cutting_once(length: int) -> None:
    text = "".join(str(number % 10) for number in range(length))
    once = cut_middle(text, 64, 0.6)
    assert cut_middle(once, 64, 0.6) == once
    assert len(once) == min(length, 1536)


def test_a_policy_is_stated_in_each_way_that_it_has_the_parts_for() -> None:
    ways = ("{name}", "{name}: {description}", "{domain}: {name}")
    assert phrase(Policy("code_review", "judge code", "programming"), ways) == [
        "code review",
        "code review: judge code",
        "programming: code review",
    ]
    assert phrase(Policy("code-review", "judge code"), ways) == ["code review", "code review: judge code"]
    assert phrase(Policy("BookFlight", ""), ways) == ["Book Flight"]
    assert phrase(Policy("APIErrors v2Help", ""), ways) == ["APIErrors v2 Help"]
    assert phrase(Policy("law", ""), ways) == ["law"]
    assert phrase(Policy("{description}", "{name} {}"), ways[:2]) == [
        "{description}",
        "{description}: {name} {}",
    ]
    assert phrase(Policy("_", ""), ways) == ["_"]


@pytest.mark.parametrize(
    ("description", "listed"),
    [
        ("flights, hotels and visas", ["flights", "hotels", "visas"]),
        ("questions of health: diet, sleep", ["questions of health", "diet", "sleep"]),
        ("trips (by train or by bus), such as outings.", ["trips", "by train", "by bus", "outings"]),
        ("Fix a bug. Explain an error.", ["Fix a bug", "Explain an error"]),
        ("organise bands in Orlando", []),
        ("this and this", []),
        ("a, or b", []),
        ("", []),
    ],
)
def test_a_description_that_lists_is_taken_apart(description: str, listed: list[str]) -> None:
    assert items("", description) == listed
    assert items("trips", description) == [f"trips: {item}" for item in listed]


def test_of_an_endless_list_the_first_items_count() -> None:
    assert items("", ", ".join(f"item {number}" for number in range(99))) == [
        f"item {number}" for number in range(12)
    ]
