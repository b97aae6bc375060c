"""Reading labelled cases, and measuring verdicts against them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ext_proc.core.types import Message, Policy, Verdict
from ext_proc.router.cases import Case, read_cases
from ext_proc.router.measures import calibration_error, measure

POLICIES = (Policy("code", "write code"), Policy("law", ""))
INLINE = [{"name": "code", "description": "write code"}, {"name": "law"}]
USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}


def file_of(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "cases.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    return path


def test_a_case_per_line_with_policies_inline(tmp_path: Path) -> None:
    row = {"messages": [USER], "gold": "code", "policies": INLINE}
    first, second = read_cases(file_of(tmp_path, row, row | {"gold": "other"}))
    assert first == Case((Message("user", "hi"),), POLICIES, "code")
    assert second.gold is None
    assert second.policies is first.policies


def test_policies_from_a_set_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "policy_sets").mkdir()
    (tmp_path / "policy_sets" / "two.yaml").write_text(json.dumps({"policies": INLINE}))
    (case,) = read_cases(file_of(tmp_path, {"messages": [USER], "gold": "law", "policy_set": "two"}))
    assert case.policies == POLICIES


def test_policies_carry_their_examples(tmp_path: Path) -> None:
    policy = {"name": "code", "examples": ["fix this"], "not_examples": ["fix my car"], "license": "none"}
    row = {"messages": [USER], "gold": "code", "policies": [policy]}
    (case,) = read_cases(file_of(tmp_path, row))
    assert case.policies == (Policy("code", "", examples=("fix this",), not_examples=("fix my car",)),)


def test_a_conversation_with_a_label_per_turn_is_a_case_per_turn(tmp_path: Path) -> None:
    messages = [USER, ASSISTANT, USER, ASSISTANT]
    row = {"messages": messages, "gold": {"1": "code", "2": "other"}, "policies": INLINE}
    first, second = read_cases(file_of(tmp_path, row))
    assert (len(first.messages), first.gold) == (1, "code")
    assert (len(second.messages), second.gold) == (3, None)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER], "gold": "poetry", "policies": INLINE},
        {"messages": [USER], "policies": INLINE},
        {"messages": "hi", "gold": "code", "policies": INLINE},
    ],
)
def test_what_is_no_case_is_named_by_line(tmp_path: Path, row: dict[str, object]) -> None:
    good = {"messages": [USER], "gold": "code", "policies": INLINE}
    with pytest.raises(ValueError, match=r"cases\.jsonl:2:"):
        list(read_cases(file_of(tmp_path, good, row)))


def test_shares_of_all_turns_of_fitting_turns_and_of_the_rest() -> None:
    golds: list[str | None] = ["code", "code", "law", None, None]
    said = ["code", "law", "law", None, "code"]
    cases = [Case((Message("user", "hi"),), POLICIES, gold) for gold in golds]
    verdicts = [Verdict(name, (("code", 0.5), ("law", 0.5)), 0.0) for name in said]
    found = measure(cases, verdicts)
    assert (found.n, found.turn_accuracy) == (5, 0.6)
    assert found.fitting_accuracy == pytest.approx(2 / 3)
    assert found.other_recall == 0.5


def test_a_share_of_nothing_is_nan() -> None:
    case = Case((Message("user", "hi"),), POLICIES, "code")
    found = measure([case], [Verdict("code", (("code", 1.0),), 0.0)])
    assert math.isnan(found.other_recall)
    assert found.ece == 0


def test_calibration_error_is_the_gap_between_said_and_found() -> None:
    assert calibration_error([0.8] * 10, [True] * 8 + [False] * 2) == pytest.approx(0)
    assert calibration_error([0.9] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.4)
    assert calibration_error([1.0, 0.0], [True, False]) == 0
