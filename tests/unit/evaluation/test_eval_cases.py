"""Reading labelled cases: every line that is one, and what is wrong with each of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ext_proc.core.errors import Reason
from ext_proc.core.types import Message, Policy, Verdict
from ext_proc.evaluation.cases import OTHER, Case, Grain, read_cases
from tests.unit.evaluation.cases import ASSISTANT, INLINE, POLICIES, USER, file_of, row


def test_a_case_per_line_with_policies_inline(tmp_path: Path) -> None:
    path = file_of(tmp_path, row("hi", "code", id="a", license="none", meta={}), row("hi", "other"))
    first, second = read_cases(path).cases
    assert first == Case("a", (Message("user", "hi"),), POLICIES, "code")
    assert (second.id, second.gold) == ("line 2", OTHER)
    assert second.policies is first.policies


def test_policies_from_a_set_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "policy_sets").mkdir()
    (tmp_path / "policy_sets" / "two.yaml").write_text(json.dumps({"note": "", "policies": INLINE}))
    (case,) = read_cases(file_of(tmp_path, {"messages": [USER], "gold": "law", "policy_set": "two"})).cases
    assert case.policies == POLICIES


def test_policies_carry_their_examples_and_keep_their_domain_from_the_router(tmp_path: Path) -> None:
    policy = {"name": "code", "domain": "work", "examples": ["fix this"], "not_examples": ["fix my car"]}
    rows = [row("hi", gold, policies=[policy, {"name": "work"}]) for gold in ("code", "work", "other")]
    cases = read_cases(file_of(tmp_path, *rows)).cases
    expected = Policy("code", "", examples=("fix this",), not_examples=("fix my car",))
    assert cases[0].policies == (expected, Policy("work", ""))
    assert [case.grain for case in cases] == [Grain.ACTION, Grain.DOMAIN, None]


def test_policies_that_are_given_take_the_place_of_the_files(tmp_path: Path) -> None:
    given = (Policy("law", "the law", domain="work"), Policy("work", ""))
    path = file_of(tmp_path, row("hi", "law", policy_set="nowhere"), row("hi", "code"))
    file = read_cases(path, given)
    assert [(case.policies, case.grain) for case in file.cases] == [(given, Grain.ACTION)]
    assert file.problems == (f'{path}:2: gold "code" is none of the policies',)


def test_a_conversation_with_a_label_per_turn_is_a_case_per_turn(tmp_path: Path) -> None:
    messages = [USER, ASSISTANT] * 4
    gold = {"1": "code", "2": "other", "3": "other", "4": "code"}
    cases = read_cases(file_of(tmp_path, row("", gold, messages=messages, conversation_id="c"))).cases
    assert [len(case.messages) for case in cases] == [1, 3, 5, 7]
    assert [case.id for case in cases] == ["c-t1", "c-t2", "c-t3", "c-t4"]
    assert {case.conversation for case in cases} == {"c"}
    assert [case.span for case in cases] == ["c-s1", "c-s2", "c-s2", "c-s3"]


def test_spans_of_the_file_count_and_runs_of_one_label_where_it_has_none(tmp_path: Path) -> None:
    rows = [
        row("hi", "code", conversation_id="c"),
        row("hi", "law", conversation_id="d", span_id="x"),
        row("hi", "law", conversation_id="c"),
        row("hi", "law", conversation_id="c"),
        row("hi", "law"),
    ]
    cases = read_cases(file_of(tmp_path, *rows)).cases
    assert [case.span for case in cases] == ["c-s1", "x", "c-s2", "c-s2", None]


def test_contents_may_be_lists_of_parts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "what is"}, {"type": "image_url", "image_url": {}}, "this?"]
    messages = [{"role": "assistant", "content": None, "tool_calls": []}, {"role": "user", "content": parts}]
    (case,) = read_cases(file_of(tmp_path, row("", "code", messages=messages))).cases
    assert case.messages == (Message("assistant", ""), Message("user", "what is\nthis?"))


def test_a_decision_that_was_recorded(tmp_path: Path) -> None:
    decided = {"policy": "law", "scores": {"code": 0.25, "law": 0.5}, "none": 0.25, "reason": "policy"}
    rows = [row("hi", None, decided=decided), row("hi", None, decided={"failure": "router_timeout"})]
    first, second = read_cases(file_of(tmp_path, *rows), labelled=False).cases
    assert (first.gold, first.decided) == (None, Verdict("law", (("code", 0.25), ("law", 0.5)), 0.25))
    assert second.decided == Verdict(failure=Reason.ROUTER_TIMEOUT)


MALFORMED: list[tuple[dict[str, Any] | str, str]] = [
    ("{", "no JSON: Expecting property name enclosed in double quotes in column 2"),
    ("[1]", "no JSON object"),
    (row("hi", "poetry"), 'gold "poetry" is none of the policies'),
    (row("hi", None), 'it has no "gold"'),
    ({"messages": [USER], "gold": "code"}, 'it has neither "policies" nor "policy_set"'),
    (row("hi", "code", messages="hi"), '"messages" is not a list'),
    (row("hi", "code", messages=[USER, 3]), "message 2 has no role, or a content that is no text"),
    (row("hi", "code", messages=[{"role": "user", "content": 3}]), "message 1 has no role, or a content"),
    (row("hi", "code", messages=[ASSISTANT]), "no message is the user's"),
    (row("hi", {}), "gold is empty"),
    (row("hi", {"2": "code"}), 'gold has a user turn "2", and there are 1 of them'),
    (row("hi", {"one": "code"}), 'gold has a user turn "one", and there are 1 of them'),
    (row("hi", {"1": "x"}), 'gold "x" is none of the policies'),
    (row("hi", "code", conversation_id=[]), '"conversation_id" is not text'),
    (row("hi", "code", policies=[{"description": "x"}]), "a policy needs a name"),
    (row("hi", "code", policies=[{"name": "code", "examples": "x"}]), "a policy needs a name"),
    (row("hi", "code", policies=[*INLINE, {"name": "other"}]), 'a policy cannot be called "other" here'),
    (row("hi", "code", policies=[*INLINE, {"name": "law"}]), 'a policy cannot be called "law" here'),
    ({"messages": [USER], "gold": "code", "policy_set": "../x"}, '"policy_set" is not a name'),
    (row("hi", "code", decided=[]), '"decided" is not an object'),
    (row("hi", "code", decided={"failure": "bored"}), '"decided" is not a decision'),
]


@pytest.mark.parametrize(("line", "problem"), MALFORMED)
def test_what_is_no_case_is_named_by_line_and_nothing_else_is_lost(
    tmp_path: Path, line: dict[str, Any] | str, problem: str
) -> None:
    path = file_of(tmp_path, row("one", "code"), line, row("three", "law"))
    file = read_cases(path)
    assert [case.messages[0].text for case in file.cases] == ["one", "three"]
    (found,) = file.problems
    assert found.startswith(f"{path}:2: {problem}")


def test_a_policy_set_that_is_missing_and_a_line_that_is_no_utf8(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"messages": [USER], "gold": "code", "policy_set": "gone"})
    path.write_bytes(path.read_bytes().rstrip() + b"\n\xff\xfe\n")
    first, second = read_cases(path).problems
    assert first == (
        f"{path}:1: the policy set {tmp_path}/policy_sets/gone.yaml cannot be read: No such file or directory"
    )
    assert second == f"{path}:2: no JSON in UTF-8"
