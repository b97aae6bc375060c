"""What docs/evaluation.md says is tried here: its commands, in order, and its cases."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from ext_proc.cli import main
from ext_proc.evaluation.cases import read_cases
from ext_proc.evaluation.lint import OVERLAP

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "evaluation.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_every_command_runs_in_the_order_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "arch_config.yaml", tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) == 7
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "arch-ext-proc"
        assert main(arguments) == 0, line
        assert capsys.readouterr().out, line


def test_the_cases_of_the_page_are_cases(tmp_path: Path) -> None:
    (cases,) = blocks("json")
    lines = [line.replace('"messages"', '"policy_set": "p", "messages"') for line in cases.splitlines()]
    (tmp_path / "policy_sets").mkdir()
    names = "[{name: code generation}, {name: travel planning}]"
    (tmp_path / "policy_sets" / "p.yaml").write_text(f"policies: {names}")
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(lines))
    file = read_cases(path)
    assert file.problems == ()
    assert [case.gold for case in file.cases] == ["code generation", "travel planning", "other"]


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert f"and {OVERLAP} warns" in TEXT
