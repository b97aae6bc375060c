"""`arch-ext-proc eval` with the router that ships, on the example of the repository and on small files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ext_proc.cli import main
from tests.unit.evaluation.cases import file_of, row

ROOT = Path(__file__).parents[3]
CASES, CONFIG = str(ROOT / "examples" / "cases.jsonl"), str(ROOT / "arch_config.yaml")


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["eval", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_example_with_its_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(capsys, CASES, "--config", CONFIG)
    assert (found["n"], found["conversations"]) == (41, 5)
    shares = ("turn_accuracy", "span_accuracy", "conversation_accuracy", "other_recall", "ece", "fqfa")
    assert all(0 <= found[key] <= 1 for key in shares)
    assert found["turn_accuracy"] > 0.75
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
    assert sum(policy["n"] for policy in found["policies"]) == 41
    assert found["problems"] == []


def test_for_people_it_says_what_overlaps_and_what_was_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", CASES, "--config", CONFIG, "--errors", "1"]) == 0
    out, err = capsys.readouterr()
    assert "these two descriptions overlap" in out
    assert "wrong decisions, the surest first (1 of " in out
    assert err == ""


def test_what_is_undefined_is_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file_of(tmp_path, row("write code for me", "code"))
    found = evaluated(capsys, str(path), "--router", "embedded")
    assert (found["n"], found["turn_accuracy"]) == (1, 1.0)
    undefined = ("span_accuracy", "conversation_accuracy", "other_recall", "fqfa", "fqca")
    assert [found[key] for key in undefined] == [None] * 5


def test_a_line_that_is_no_case_is_named_and_the_others_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(tmp_path, row("write code for me", "code"), "{", row("hi", "poetry"))
    assert main(["eval", str(path), "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["n"] == 1
    assert err.splitlines() == [*json.loads(out)["problems"], "2 lines are no cases and were left out"]
    assert err.startswith(f"{path}:2: ")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere.jsonl"], "arch-ext-proc eval: nowhere.jsonl: No such file or directory\n"),
        ([CASES], 'cases.jsonl:1: it has neither "policies" nor "policy_set"'),
        ([CASES, "--config", "nowhere.yaml"], "nowhere.yaml:1:1: there is no such file"),
    ],
)
def test_what_cannot_be_measured_at_all(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert problem in err
