"""Two answers side by side."""

from __future__ import annotations

import pytest

from ext_proc.core.compare import compare, is_refusal
from ext_proc.core.observation import Comparison, Role
from ext_proc.core.reply import Reply, ToolCall
from tests.support.pairs import an_answer

PRIMARY, SHADOW = an_answer().observation, an_answer(Role.SHADOW).observation


def compared(one: Reply | str, other: Reply | str) -> Comparison:
    replies = [Reply(given) if isinstance(given, str) else given for given in (one, other)]
    return compare(PRIMARY, SHADOW, (replies[0], replies[1]), 9.0)


def call(name: str = "f", arguments: str = "{}") -> Reply:
    return Reply("", (ToolCall(name, arguments),))


def test_white_space_makes_no_difference() -> None:
    assert compared("It  rains.\n", " It\trains.").exact
    assert not compared("It rains.", "It snows.").exact


def test_the_length_is_the_copys_by_the_primarys() -> None:
    assert compared("1234", "12").length_ratio == 0.5
    assert compared("", "12").length_ratio is None


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ('{"a": 1, "b": [2]}', '{"b":[2],"a":1}', True),
        ('```json\n{"a": 1}\n```', '{"a":1}', True),
        ('{"a": 1}', '{"a": 2}', False),
        ("[1, 2]", "[2, 1]", False),
        ('{"a": 1}', "a is one", False),
        ("a is one", "a is 1", None),
        ("7", "7", None),
        (call(arguments='{"a": 1, "b": 2}'), call(arguments='{"b":2,"a":1}'), True),
        (call(arguments=""), call(arguments="{}"), True),
        (call("f"), call("g"), False),
        (call(), "I would call f.", False),
        (call(arguments="{broken"), call(arguments="{broken"), True),
        (
            Reply("", (ToolCall("f", "{}"), ToolCall("g", "{}"))),
            Reply("", (ToolCall("g", "{}"), ToolCall("f", "{}"))),
            True,
        ),
        (Reply("x", (ToolCall("f", "{}"),)), Reply("y", (ToolCall("f", "{}"),)), True),
    ],
)
def test_structured_answers_are_compared_as_data(
    one: Reply | str, other: Reply | str, equal: bool | None
) -> None:
    assert compared(one, other).structured_equal is equal


@pytest.mark.parametrize(
    "changes", [{"status": 500}, {"status": 0}, {"status": 400}, {"broken": True}, {"cut": True}]
)
@pytest.mark.parametrize("role", [Role.PRIMARY, Role.SHADOW])
def test_a_failed_answer_has_nothing_to_compare(role: Role, changes: dict[str, object]) -> None:
    failed = an_answer(role, **changes).observation
    one, other = (failed, SHADOW) if role is Role.PRIMARY else (PRIMARY, failed)
    assert compare(one, other, (Reply("a"), Reply("a")), 9.0) == Comparison(one, other, 9.0)


def test_contents_that_were_not_kept_are_not_compared() -> None:
    assert compare(PRIMARY, SHADOW, (None, Reply("a")), 9.0).exact is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, I can\u2019t assist with that request.",
        "I cannot provide instructions for this.",
        "As an AI language model, I must refrain.",
        "I'm unable to comply.",
        "I am not able to share that.",
        "This is against my guidelines.",
    ],
)
def test_an_answer_that_begins_by_declining_is_a_refusal(text: str) -> None:
    assert is_refusal(Reply(text))


@pytest.mark.parametrize(
    "text",
    [
        "Sure, here is the code.",
        "You can't divide by zero.",
        "It rains. " * 60 + "I cannot say more.",
        "",
        "I'm sorry to hear it!",
    ],
)
def test_other_answers_are_none(text: str) -> None:
    assert not is_refusal(Reply(text))


def test_the_apis_own_word_counts_and_a_tool_call_is_no_refusal() -> None:
    assert is_refusal(Reply("", (), True))
    assert not is_refusal(Reply("I cannot see it, let me look.", (ToolCall("look", "{}"),)))
