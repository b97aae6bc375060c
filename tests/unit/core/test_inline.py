"""Policies that requests bring along: both published forms, and what does not count as one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ext_proc.core import inline, spans
from ext_proc.core.types import InlinePolicy, Policy

CODE = {"name": "code", "description": "writing code", "models": ["a", "b"]}


def from_yaml(text: object) -> tuple[InlinePolicy, ...] | None:
    return inline.read({"metadata": {"archgw_preference_config": text}})


def names(given: tuple[InlinePolicy, ...] | None) -> list[str]:
    assert given is not None
    return [policy.policy.name for policy in given]


def test_the_form_of_2026_ranks_models() -> None:
    assert inline.read({"routing_preferences": [CODE]}) == (
        InlinePolicy(Policy("code", "writing code"), ("a", "b")),
    )


def test_the_older_form_of_2025_is_a_list_of_usages() -> None:
    text = "- name: code\n  model: a\n  usage: writing code\n- name: chat\n  model: b\n  usage: small talk\n"
    assert from_yaml(text) == (
        InlinePolicy(Policy("code", "writing code"), ("a",)),
        InlinePolicy(Policy("chat", "small talk"), ("b",)),
    )


def test_the_later_form_of_2025_nests_preferences_under_their_model() -> None:
    text = """
- model: a
  routing_preferences:
    - {name: code, description: writing code}
    - {name: review, description: "reading, judging"}
"""
    assert from_yaml(text) == (
        InlinePolicy(Policy("code", "writing code"), ("a",)),
        InlinePolicy(Policy("review", "reading, judging"), ("a",)),
    )


@pytest.mark.parametrize("fields", [{}, {"metadata": None}, {"metadata": []}, {"metadata": {"a": "b"}}])
def test_a_request_without_policies_has_none(fields: dict[str, Any]) -> None:
    assert inline.read(fields) is None


@pytest.mark.parametrize(
    "given",
    [
        None,
        7,
        "code",
        {},
        [],
        [7, None, []],
        [{"name": "code", "description": "d"}],
        [{**CODE, "models": []}],
        [{**CODE, "models": "a"}],
        [{**CODE, "models": [7, None]}],
        [{**CODE, "name": 7}],
        [{**CODE, "name": " "}],
        [{**CODE, "description": ["d"]}],
        [{"model": "a", "routing_preferences": [7, {"name": []}]}],
    ],
)
def test_what_is_in_neither_form_is_nothing_usable(given: Any) -> None:
    assert inline.read({"routing_preferences": given}) == ()


@pytest.mark.parametrize("name", ["a\r\nx-evil: 1", "a\nb", "a\x00", "a\x7f", "a\u2028b", "a\tb", "n" * 129])
def test_a_name_that_is_no_header_value_does_not_count(name: str) -> None:
    assert inline.read({"routing_preferences": [{**CODE, "name": name}]}) == ()


def test_a_name_loses_the_space_around_it() -> None:
    assert names(inline.read({"routing_preferences": [{**CODE, "name": " write code\n"}]})) == ["write code"]


def test_the_first_of_two_policies_of_one_name_counts() -> None:
    given = inline.read({"routing_preferences": [CODE, {**CODE, "models": ["c"]}]})
    assert given == (InlinePolicy(Policy("code", "writing code"), ("a", "b")),)


def test_size_and_number_are_bounded() -> None:
    many = [{"name": f"p{number}", "description": "d" * 5_000, "models": ["m"] * 100} for number in range(99)]
    given = inline.read({"routing_preferences": many})
    assert given is not None
    assert len(given) == inline.MAX_POLICIES
    assert {len(policy.policy.description) for policy in given} == {inline.MAX_DESCRIPTION_CHARS}
    assert {len(policy.models) for policy in given} == {inline.MAX_MODELS}
    nested = [{"model": "a", "routing_preferences": many}, {"model": "b", "routing_preferences": many}]
    assert len(inline.read({"routing_preferences": nested}) or ()) == inline.MAX_POLICIES


@pytest.mark.parametrize(
    "text",
    [
        7,
        None,
        "",
        "x",
        "- name: [",
        "a: &a [x]\nb: *a",
        "- &a {name: code, model: m, usage: u}\n- *a",
        "- name: code\n  model: m\n  usage: u\n---\n- name: more",
        "? [a]\n: b",
        "- name: code\n  model: m\n  usage: \x00",
        "[" * 10_000,
        "- {a: " * 2_000,
        "- !!python/object/apply:os.system [x]",
        "- name: code\n  model: m\n  usage: u\n#" + "x" * inline.MAX_TEXT_CHARS,
    ],
)
def test_yaml_that_is_broken_or_a_trap_is_nothing_usable(text: object) -> None:
    assert from_yaml(text) == ()


def test_yaml_of_more_parts_than_policies_need_is_not_built() -> None:
    text = "- name: code\n  model: m\n  usage: u\n"
    assert names(from_yaml(text + "- []\n" * 900)) == ["code"]
    assert from_yaml(text + "- []\n" * 1_000) == ()


def test_sixty_four_policies_of_many_fields_are_read() -> None:
    text = "".join(
        f"- name: p{number}\n  model: m\n  usage: u\n" + "".join(f"  k{key}: v\n" for key in range(7))
        for number in range(inline.MAX_POLICIES)
    )
    assert len(from_yaml(text) or ()) == inline.MAX_POLICIES


def test_yaml_scalars_are_texts_whatever_they_look_like() -> None:
    (policy,) = from_yaml("- {name: yes, model: 1.0, usage: 2020-01-01}") or ()
    assert policy == InlinePolicy(Policy("yes", "2020-01-01"), ("1.0",))


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"model":"m","routing_preferences":[{"x":[1]}]}', b'{"model":"m"}'),
        (b'{"routing_preferences":[], "model":"m"}', b'{"model":"m"}'),
        (b'{"metadata":{"archgw_preference_config":"x","user_id":"u"}}', b'{"metadata":{"user_id":"u"}}'),
        (b'{"metadata":{"archgw_preference_config":"x"}}', b'{"metadata":{}}'),
        (b'{"metadata":{"a":{"archgw_preference_config":1}}}', None),
        (b'{"metadata":"archgw_preference_config"}', None),
        (b'{"x":{"routing_preferences":[]}}', None),
        (
            b'{"metadata":{"archgw_preference_config":1},"routing_preferences":1,'
            b'"metadata":{"archgw_preference_config":2,"a":1},"routing_\\u0070references":2}',
            b'{"metadata":{},"metadata":{"a":1}}',
        ),
    ],
)
def test_both_forms_are_taken_out_wherever_they_stand(body: bytes, left: bytes | None) -> None:
    after = spans.apply(body, inline.removals(body))
    assert after == (body if left is None else left)
    json.loads(after)
