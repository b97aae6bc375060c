"""`arch-ext-proc check`: everything that is wrong, in one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ext_proc.cli import main

WRONG = """\
model_providers:
  - {model: openai/a, acces_key: $A_KEY_OF_NOBODY, default: true}
  - {model: openai/b, access_key: $A_KEY_OF_NOBODY}
routing_preferences:
  - name: code
    description: writing code
    targets: [{model: openai/b, weight: 0}, {model: openai/bb, weight: 0}]
routing: {deadline: 900ms}
"""


def test_every_problem_has_its_place_and_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("A_KEY_OF_NOBODY", raising=False)
    path = tmp_path / "f.yaml"
    path.write_text(WRONG)
    assert main(["check", str(path)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert all(" — " in line for line in lines)
    assert [line.removeprefix(f"{path}:").partition(" — ")[0] for line in lines] == [
        "1:1: warning: without affinity.salt, sessions change arms at a restart and differ between replicas",
        '2:23: unknown key "acces_key"',
        "3:35: warning: the environment variable A_KEY_OF_NOBODY is not set: serve will need it",
        "7:14: every weight is zero",
        '7:53: there is no provider "openai/bb"',
        "8:21: the router's deadline of 900ms does not fit in Envoy's message timeout of 500ms",
    ]


def test_a_sound_file_is_ok_and_a_warning_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("model_providers: [{model: openai/a, default: true}]\n")
    assert main(["check", str(path)]) == 0
    warning, ok = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"{path}:1:1: warning: without affinity.salt")
    assert ok == f"{path}: ok"
