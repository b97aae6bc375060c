"""What models write, to the name that they mean."""

from __future__ import annotations

import pytest

from ext_proc.core import answer
from ext_proc.core.answer import Answer, Garbled, read
from ext_proc.core.prompt import Variant
from ext_proc.core.types import Policy

POLICIES = (
    Policy("code", "d"),
    Policy("don't know", "d"),
    Policy("Größe", "d"),
    Policy('say "hi"', "d"),
    Policy("a, b", "d"),
    Policy("null", "d"),
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"route": "code"}', "code"),
        ('{"route":"code"}', "code"),
        ("{'route': 'code'}", "code"),
        ('```json\n{"route": "code"}\n```', "code"),
        ('The best route is:\n{"route": "code"} because it is code', "code"),
        ('{"route": "code"', "code"),
        ('{"route": "code', "code"),
        ('{"route": code}', "code"),
        ("{route: code}", "code"),
        ('{"route": ["code", "Größe"]}', "code"),
        ("{'route': ['code']}", "code"),
        ('{"reason": "x", "route": "code"}', "code"),
        ('{"route" : "CODE "}', "code"),
        ('{"route": "gr\\u00f6\\u00dfe"}', "Größe"),
        ("{'route': 'don't know'}", "don't know"),
        ("{'route': 'don\\'t know'}", "don't know"),
        ('{"route": "don\'t know"}', "don't know"),
        ('{"route": "say \\"hi\\""}', 'say "hi"'),
        ('{"route": "a, b"}', "a, b"),
        ("code", "code"),
        (" `code`.\n", "code"),
        ('"code"', "code"),
        ('{"route": "null"}', "null"),
    ],
)
def test_a_name_is_read_in_whatever_dress_it_comes(text: str, name: str) -> None:
    assert read(text, POLICIES).name == name


@pytest.mark.parametrize(
    "text",
    [
        '{"route": "other"}',
        '{"route": "Other"}',
        '{"route": ""}',
        '{"route": null}',
        '{"route": None}',
        '{"route": []}',
        '{"route": "cooking"}',
        '{"route": ["cooking", "code"]}',
        "{'route': 'cooking'}",
        "other",
    ],
)
def test_other_nothing_and_unknown_names_are_none_of_the_policies(text: str) -> None:
    assert read(text, POLICIES[:5]).name is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "I cannot help with that.",
        '{"route": ',
        '{"route": "cod',
        '{"route": nul',
        '{"route": 7}',
        '{"path": "code"}',
        "The code is fine",
        "x" * 5_000 + '{"route": "code"}',
        '"route":\'a' * 200,
    ],
)
def test_what_names_nothing_is_garbled(text: str) -> None:
    with pytest.raises(Garbled):
        read(text, POLICIES)


def test_apostrophes_without_an_end_are_not_searched_forever() -> None:
    text = "{'route': '" + "a'" * 15 + "'}"
    assert read(text, (Policy("a'" * 14 + "a", "d"),)).name is not None
    text = "{'route': '" + "a'" * 17 + "'}"
    with pytest.raises(Garbled):
        read(text, (Policy("a'" * 16 + "a", "d"),))


def test_a_policy_called_other_is_never_meant() -> None:
    assert read('{"route": "other"}', (Policy("other", "d"),)).name is None


def test_the_place_of_a_name_is_what_was_decided_token_by_token() -> None:
    text = '{"route": "code"}'
    assert answer.read(text, POLICIES) == Answer("code", 10, 16)
    text = '{"route": ["code", "x"]}'
    found = answer.read(text, POLICIES)
    assert text[found.start : found.end] == '["code"'
    text = '{"route": []}'
    found = answer.read(text, POLICIES)
    assert text[found.start : found.end] == "[]"


@pytest.mark.parametrize(
    ("name", "variant", "text"),
    [
        ("code", Variant.ARCHGW, '{"route": "code"}'),
        (None, Variant.ARCHGW, '{"route": "other"}'),
        ("Größe", Variant.MODEL_CARD, '{"route": "Größe"}'),
        ("code", Variant.PLANO_ORCHESTRATOR, '{"route": ["code"]}'),
        (None, Variant.PLANO_ORCHESTRATOR, '{"route": []}'),
    ],
)
def test_an_answer_is_written_as_the_family_does_and_read_back(
    name: str | None, variant: Variant, text: str
) -> None:
    assert answer.written(name, variant) == text
    assert read(text, POLICIES).name == name
