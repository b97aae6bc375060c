"""What is rendered under envoy/ is what this version renders."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ext_proc.cli import main

ROOT = Path(__file__).parents[3]
(BLOCK,) = re.findall(r"```sh\n(.*?)```", (ROOT / "envoy/README.md").read_text(), re.DOTALL)
EXPORTS, *COMMANDS = BLOCK.splitlines()


@pytest.mark.parametrize("line", COMMANDS)
def test_a_rendered_example_does_not_drift(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for pair in shlex.split(EXPORTS)[1:]:
        monkeypatch.setenv(*pair.split("="))
    program, *arguments, redirect, file = shlex.split(line)
    assert (program, redirect) == ("arch-ext-proc", ">")
    assert main(arguments) == 0
    rendered = capsys.readouterr().out
    assert rendered == Path(file).read_text(), "run `make render`"
    assert "not-in-what-is-rendered" not in rendered


def test_everything_rendered_is_made_by_one_of_the_commands() -> None:
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "envoy").rglob("*.yaml")}
    inputs = {file for file in files if file.endswith("arch_config.yaml")}
    assert {shlex.split(line)[-1] for line in COMMANDS} == files - inputs
    assert {shlex.split(line)[2] for line in COMMANDS} == inputs
