"""`arch-ext-proc eval` with the router that ships, on the example of the repository and on small files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def test_for_people_it_says_what_overlaps_and_what_was_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(file_of(tmp_path, row("write code", "law"), row("a lease", "code"), row("a lease", "law")))
    assert main(["eval", path, "--errors", "1"]) == 0
    out, err = capsys.readouterr()
    assert 'these two descriptions overlap: "law" was taken for "code" 1 time, 1 the other way' in out
    assert "wrong decisions, the surest first (1 of 2)" in out
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


def test_what_every_line_lacks_is_said_once_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = {"messages": [{"role": "user", "content": "hi"}], "gold": "code"}
    path = file_of(tmp_path, *[bare] * 30, "{")
    assert main(["eval", str(path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f'arch-ext-proc eval: {path}:1: it has neither "policies" nor "policy_set": give --config FILE'
        " (and 29 more like it)",
        f"{path}:31: no JSON: Expecting property name enclosed in double quotes in column 2",
    ]


@pytest.fixture
def edited(tmp_path: Path) -> str:
    """The configuration after an edit that mixes up four descriptions."""
    text = Path(CONFIG).read_text()
    legal, travel, support, writing = re.findall("    description: (.*)\n    models", text)[-4:]
    for old, new in ((legal, "L"), (travel, "T"), (support, "S"), (writing, "W")):
        text = text.replace(old, f"<{new}>")
    for mark, new in (("L", writing), ("T", support), ("S", travel), ("W", legal)):
        text = text.replace(f"<{mark}>", new)
    path = tmp_path / "edited.yaml"
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the configuration decided before the edit."""
    path = tmp_path_factory.mktemp("saved") / "before.jsonl"
    assert main(["eval", CASES, "--config", CONFIG, "--save", str(path), "--errors", "0"]) == 0
    return path


def test_an_edit_that_makes_it_worse_is_shown_and_fails(
    edited: str, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", CASES, "--compare", str(saved), edited, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["difference"]["is_shown"]) == (41, True)
    assert found["difference"]["high"] < 0
    assert any(flip["gold"] == "legal" and flip["gain"] == -1 for flip in found["flipped"])


def test_a_router_does_not_differ_from_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(file_of(tmp_path, row("a poem", "creative writing"), row("hi", "other")))
    assert main(["eval", path, "--config", CONFIG, "--compare", "embedded", CONFIG]) == 0
    assert "0 of 2 decisions flip" in capsys.readouterr().out


def test_the_router_of_a_configuration_and_the_policies_of_the_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    never = tmp_path / "never.yaml"
    never.write_text(
        "model_providers: [{model: openai/a, default: true}]\n"
        "routing: {router: {type: embedded, threshold: 1}}\n"
    )
    path = str(file_of(tmp_path, row("write code for me", "code")))
    found = evaluated(capsys, path, "--router", str(never))
    assert (found["turn_accuracy"], found["policies"][-1]["name"]) == (0.0, "other")
    assert found["router"] == f"embedded of {never}"


def test_a_replay_says_what_would_be_decided_otherwise_now(
    edited: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in saved.read_text().splitlines()]
    for line in rows:
        del line["gold"]
    record = str(file_of(tmp_path, *rows))
    (tmp_path / "policy_sets").symlink_to(saved.parent / "policy_sets")
    assert main(["eval", "--replay", record, "--config", edited, "--errors", "1"]) == 0
    assert "which nobody labelled" in capsys.readouterr().out
    assert main(["eval", "--replay", record, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agreement"] == 1.0
    assert main(["eval", record, "--suggest-examples", "1"]) == 0
    assert len(yaml.safe_load(capsys.readouterr().out)) == 6


def test_suggested_examples_are_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", CASES, "--config", CONFIG, "--suggest-examples"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# On ")
    for policy in (yaml.safe_load(out) or {}).get("routing_preferences", []):
        assert set(policy) == {"name", "examples"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--compare", "embedded", "x.yaml"], "name a file of cases"),
        ([CASES, "--compare", "nonsense", CONFIG], "nonsense is no router"),
        ([CASES, "--config", CONFIG, "--router", "transformers"], "the router transformers needs settings"),
        (["--replay", CASES, "--config", CONFIG], "holds no decision"),
        ([], "name a file of cases"),
    ],
)
def test_what_cannot_be_compared(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *arguments]) == 2
    assert problem in capsys.readouterr().err
