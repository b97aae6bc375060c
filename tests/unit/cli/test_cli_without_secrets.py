"""What serves nothing needs no secrets, and shows none: CI has them not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ext_proc.cli import main

TEXT = """\
model_providers:
  - {model: openai/a, access_key: $A_KEY, default: true}
  - {model: anthropic/b, access_key: {file: /nowhere/b-key}}
  - {model: anthropic/c, access_key: {file: $A_FOLDER/c-key}}
routing_preferences:
  - name: code
    description: writing code
    models: [openai/a, anthropic/b]
    rollout:
      canary: anthropic/c
      hooks: {confirm_promotion: [{url: $A_HOOK, token: $A_HOOK_TOKEN}]}
  - name: travel
    description: planning a trip
    targets: [{model: openai/a, weight: 1}, {model: anthropic/c, weight: 1}]
affinity: {salt: $A_SALT, tester_key: $A_TESTER_KEY}
admin: {token: $AN_ADMIN_TOKEN}
rollouts: {store: $A_STORE}
server: {address: 0.0.0.0, token: $A_TOKEN, trust_network: true}
"""
HUSH = "hush-hush-4711-hush"
VARIABLES = (
    "A_KEY",
    "A_HOOK",
    "A_HOOK_TOKEN",
    "A_SALT",
    "A_TESTER_KEY",
    "AN_ADMIN_TOKEN",
    "A_STORE",
    "A_TOKEN",
    "A_FOLDER",
)
ABSENT = [
    f"{place}: warning: the environment variable {name} is not set: serve will need it"
    " — set it where the server runs"
    for place, name in (
        ("2:35", "A_KEY"),
        ("4:45", "A_FOLDER"),
        ("11:41", "A_HOOK"),
        ("11:57", "A_HOOK_TOKEN"),
        ("15:18", "A_SALT"),
        ("15:39", "A_TESTER_KEY"),
        ("16:16", "AN_ADMIN_TOKEN"),
        ("17:19", "A_STORE"),
        ("18:35", "A_TOKEN"),
    )
]
ABSENT.insert(
    1,
    "3:45: warning: /nowhere/b-key cannot be read: No such file or directory: serve will need it"
    " — check that it is mounted where the server runs",
)
BARE = """\
model_providers: [{model: openai/a, access_key: $A_KEY, default: true}]
affinity: {salt: 0123456789abcdef}
routing_preferences:
  - {name: code, description: write a function or a script, models: [openai/a]}
  - {name: travel, description: "plan a trip, book flights and hotels", models: [openai/a]}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "f.yaml"
    path.write_text(TEXT)
    return path


def test_check_warns_of_every_secret_that_is_not_here(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(file)]) == 0
    *problems, last = capsys.readouterr().out.splitlines()
    assert [line.removeprefix(f"{file}:") for line in problems] == ABSENT
    assert last == f"{file}: ok"


def test_what_is_wrong_besides_still_fails(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(TEXT + "routing: {deadline: 2}\n")
    assert main(["check", str(file)]) == 2
    assert f"{file}:19:21: " in capsys.readouterr().out
    assert main(["render", str(file)]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("form", ["bootstrap", "filter", "istio"])
def test_render_writes_the_same_with_and_without_secrets_and_never_one(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    form: str,
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("b-key", "c-key"):
        (keys / name).write_text(HUSH)
    naming = "envoy: {cluster_naming: istio}\n" if form == "istio" else ""
    file.write_text(TEXT.replace("/nowhere", str(keys)) + naming)
    command = ["render", str(file), "--format", form, "--server", "arch.internal:50051"]
    assert main(command) == 0
    without = capsys.readouterr()
    assert len(without.err.splitlines()) == len(ABSENT) - 1
    for name in VARIABLES:
        monkeypatch.setenv(name, HUSH)
    monkeypatch.setenv("A_HOOK", f"https://hooks.internal/{HUSH}")
    monkeypatch.setenv("A_STORE", str(tmp_path / HUSH))
    monkeypatch.setenv("A_FOLDER", str(keys))
    assert main(command) == 0
    having = capsys.readouterr()
    assert having.err == ""
    assert having.out == without.out
    assert "%ENVIRONMENT(A_KEY)%" in having.out
    assert HUSH not in having.out


@pytest.mark.parametrize(
    "command", [["explain", "-m", "write a Python function"], ["lint-policies"], ["render"]]
)
def test_a_command_that_serves_nothing_goes_on_and_says_what_serve_will_need(
    file: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    file.write_text(BARE)
    name, *options = command
    assert main([name, str(file), *options]) in (0, 1)
    said = capsys.readouterr()
    assert said.out
    assert said.err == (
        f"{file}:1:49: warning: the environment variable A_KEY is not set: serve will need it"
        " — set it where the server runs\n"
    )


@pytest.mark.parametrize("text", [BARE, BARE.replace("$A_KEY", "{file: /nowhere/a-key}")])
def test_serve_refuses(file: Path, text: str) -> None:
    file.write_text(text)
    # In a process of its own: `serve` sets up the log of the whole process.
    command = [sys.executable, "-m", "ext_proc", "serve", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{file}:1:")
    assert "warning" not in line
    assert ":-" not in line
