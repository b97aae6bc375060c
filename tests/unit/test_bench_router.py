"""`make bench-router` in its small form: it runs to its end and says what it compares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import router


def test_every_comparison_is_made_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    router.main(["--small", "--rounds", "1", "--device", "cpu", "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["what"].split(" (")[0] for row in rows] == [
        "generate / engine: 10 policies, ordinary names",
        "generate / engine: 10 policies, branching names",
        "generate / engine: 50 policies, ordinary names",
        "generate / engine: 50 policies, branching names",
        "8 one by one / in one pass: 10 policies",
        "prefill with 20 / with 5 policies",
        "prefill with 100 / with 5 policies",
    ]
    assert all(row["first_s"] > 0 and row["second_s"] > 0 and row["ratio"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert all(row["what"] in printed for row in rows)
