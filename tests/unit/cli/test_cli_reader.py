"""Commands whose output nobody reads to its end, as before `| head`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from ext_proc.cli import main
from tests.unit.evaluation.cases import file_of, row

CONFIG = """
model_providers: [{model: openai/small, default: true}, {model: openai/large}]
routing_preferences: [{name: code, description: writing code, models: [openai/large]}]
affinity: {salt: 0123456789abcdef}
"""

COMMANDS = {
    "check": ["check", "CONFIG"],
    "explain": ["explain", "CONFIG", "-m", "hello"],
    "explain as JSON": ["explain", "CONFIG", "-m", "hello", "--json"],
    "render": ["render", "CONFIG"],
    "eval": ["eval", "CASES"],
    "eval as JSON": ["eval", "CASES", "--json"],
    "eval, with complaints": ["eval", "BROKEN"],
    "lint-policies": ["lint-policies", "CONFIG"],
    "what it is asked about itself": ["--version"],
    "the manual": ["rollout", "--help"],
}


def given(tmp_path: Path, command: str) -> list[str]:
    config = tmp_path / "arch_config.yaml"
    config.write_text(CONFIG)
    cases = file_of(tmp_path, row("write code", "law"), row("a lease", "code"))
    broken = tmp_path / "broken.jsonl"
    broken.write_text(cases.read_text() + "no case\n")
    files = {"CONFIG": str(config), "CASES": str(cases), "BROKEN": str(broken)}
    return [files.get(argument, argument) for argument in COMMANDS[command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_it_ends_quietly(command: str, tmp_path: Path) -> None:
    arguments = given(tmp_path, command)
    reads, writes = os.pipe()
    os.close(reads)
    said = tmp_path / "said"
    with os.fdopen(writes, "w") as out, said.open("w") as err, redirect_stdout(out), redirect_stderr(err):
        assert main(arguments) == 128 + signal.SIGPIPE
    assert "Traceback" not in said.read_text()


def test_a_process_of_it_says_nothing_when_it_ends(tmp_path: Path) -> None:
    arguments = given(tmp_path, "check")
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "ext_proc", *arguments],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
