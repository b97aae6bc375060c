"""What README and docs say is tried here."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from demo.processes import command
from ext_proc.config.load import load_text

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_example_configuration_loads_without_a_warning() -> None:
    (example,) = blocks("yaml")
    environ = {"OPENAI_API_KEY": "k", "ARCH_SALT": "s" * 32}
    assert load_text(example, "README.md", environ, lambda: b"").warnings == ()


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("arch-ext-proc")])
def test_a_command_of_the_readme_runs(line: str) -> None:
    _, *arguments = shlex.split(line)
    if arguments[0] == "serve":
        arguments = ["serve", "--help"]  # the end-to-end tests run it
    done = subprocess.run([command("arch-ext-proc"), *arguments], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = {line.split()[1] for line in commands() if line.startswith("make ")}
    assert targets == {"demo", "test"}
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
