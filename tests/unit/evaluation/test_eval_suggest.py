"""Choosing examples, with a router of which a person can say what it does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from ext_proc.core.types import Message
from ext_proc.evaluation.cases import OTHER, Case
from ext_proc.evaluation.suggest import CannotSuggest, as_yaml, suggest, unclear, unclear_as_yaml
from tests.unit.evaluation.cases import POLICIES, WordRouter, a_case, a_trial


def cases_of(gold: str, *texts: str) -> list[Case]:
    return [a_case(gold, text) for text in texts]


# The router counts shared words: "rent" is in no description, and the most frequent of what fails.
CASES = [
    *cases_of("law", *(f"rent question {number}" for number in range(12))),
    *cases_of("law", "the notary", "leases", "contracts"),
    *cases_of("code", "write code", "code", "please write code"),
    *cases_of(OTHER, "good morning", "hello"),
]


def ignore(done: int, of: int) -> None:
    pass


async def test_the_message_that_makes_most_others_right_is_chosen() -> None:
    found = await suggest(WordRouter(), CASES, 3, ignore)
    assert list(found.examples) == ["law"]
    (chosen,) = found.examples["law"]
    assert chosen.startswith("rent question")
    assert 0 < found.held_out < len(CASES)
    assert found.before is not None
    assert found.after is not None
    assert found.after > found.before


async def test_the_lines_can_be_pasted() -> None:
    lines = "\n".join(as_yaml(await suggest(WordRouter(), CASES, 3, ignore)))
    (policy,) = yaml.safe_load(lines)["routing_preferences"]
    assert policy["name"] == "law"
    assert policy["examples"][0].startswith("rent question")


async def test_where_no_message_helps_there_is_nothing_to_add() -> None:
    found = await suggest(WordRouter(), [case for case in CASES if "rent" not in case.id], 3, ignore)
    assert found.examples == {}
    assert "nothing to add" in "\n".join(as_yaml(found))


async def test_only_what_says_by_itself_what_is_wanted_is_suggested() -> None:
    dialogue = (Message("user", "hi"), Message("assistant", "yes?"))
    later = [
        replace(case, messages=(*dialogue, *case.messages)) if case.gold == "law" else case for case in CASES
    ]
    assert (await suggest(WordRouter(), later, 3, ignore)).examples == {}


async def test_examples_are_chosen_for_one_set_of_policies() -> None:
    cases = [a_case("code"), replace(a_case("code"), policies=POLICIES[:1])]
    with pytest.raises(CannotSuggest):
        await suggest(WordRouter(), cases, 3, ignore)


def test_of_unlabelled_messages_the_closest_calls_are_for_a_person() -> None:
    trials = [a_trial(None, "code", sure, text=f"text: {sure}\n") for sure in (0.9, 0.4, 0.6)]
    found = unclear(trials, 2)
    assert [(item.text, item.first, item.second[1]) for item in found] == [
        ("text: 0.4", ("code", 0.4), pytest.approx(0.3)),
        ("text: 0.6", ("code", 0.6), pytest.approx(0.2)),
    ]
    assert yaml.safe_load("\n".join(unclear_as_yaml(found))) == ["text: 0.4", "text: 0.6"]
