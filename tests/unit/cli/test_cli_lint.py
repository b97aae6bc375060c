"""`arch-ext-proc lint-policies` with the router that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from ext_proc.cli import main

ROOT = Path(__file__).parents[3]
TEXT = """\
model_providers: [{model: openai/a, default: true}]
affinity: {salt: 0123456789abcdef}
routing_preferences:
  - name: travel planning
    description: planning trips, finding and booking flights, hotels and trains
    examples:
      - find me a flight from Berlin to Rome
      - is a verbal contract with an employer binding?
    models: [a]
  - name: legal
    description: contracts, leases, employment law and privacy law
    models: [a]
  - name: trips
    description: planning trips, finding and booking flights, hotels, trains
    models: [a]
  - {name: rest, description: anything else, models: [a]}
"""


def test_what_is_unclear_is_said_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(TEXT)
    assert main(["lint-policies", str(path), "--pairs", "1"]) == 1
    *problems, title, pair = capsys.readouterr().out.splitlines()
    starts = [problem.removeprefix(f"{path}:")[:30] for problem in problems]
    assert "8:9: warning: the router sends" in starts
    assert "14:18: warning: the router can" in starts
    assert "16:31: warning: this descripti" in starts
    # A twin may also take the first example (line 7) and answer to the other's name (13).
    assert {int(start.partition(":")[0]) for start in starts} <= {7, 8, 13, 14, 16}
    assert title.startswith("nearest pairs")
    assert pair.endswith("travel planning | trips")


def test_the_file_of_the_repository_is_clear(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint-policies", str(ROOT / "arch_config.yaml"), "--pairs", "0"]) == 0
    assert capsys.readouterr().out.endswith("arch_config.yaml: ok\n")


def test_what_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint-policies", "nowhere.yaml"]) == 2
    assert "there is no such file" in capsys.readouterr().err
