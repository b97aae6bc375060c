"""The fuzz targets on their corpus, and for a moment on what atheris makes of it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).with_name("corpus")
RUNS = 1_500
"""A few seconds a target. The same every time: one seed, and a number of runs instead of a time."""


@pytest.mark.parametrize(
    ("target", "name"),
    [(file.parent.name, file.name) for file in sorted(CORPUS.glob("*/*"))],
)
def test_no_input_of_the_corpus_breaks_a_promise(target: str, name: str) -> None:
    TARGETS[target]((CORPUS / target / name).read_bytes())


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS if find_spec("atheris") else ())
def test_a_short_search_finds_nothing(target: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.run", target, f"-runs={RUNS}", "-seed=1"]
    path = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS} runs" in done.stderr
