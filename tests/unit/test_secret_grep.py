"""The search for planted secrets can fail: it finds what is planted, also where a run is otherwise green."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import plants, secret_grep

ROOT = Path(__file__).parents[2]
KEY = plants.CLIENT_KEY
TEXT = plants.CODING


def found_in(tmp_path: Path, name: str, data: bytes) -> list[str]:
    """What a search finds of a file, which is gone before this run's own search."""
    file = tmp_path / name
    file.write_bytes(data)
    try:
        return list(secret_grep.search(tmp_path))
    finally:
        file.unlink()


@pytest.mark.parametrize("plant", plants.ALL)
def test_each_plant_is_found_and_not_repeated(tmp_path: Path, plant: str) -> None:
    (line,) = found_in(tmp_path, "server.log", b"x" * 10 + plant.encode() + b"\xff")
    assert line == f"server.log: {plants.NAMES[plant]}"


def test_a_plant_across_two_pieces_is_found(tmp_path: Path) -> None:
    before = b"x" * (secret_grep.CHUNK_BYTES - 5)
    assert len(found_in(tmp_path, "server.log", before + KEY.encode())) == 1


def test_a_record_may_hold_texts_and_no_keys(tmp_path: Path) -> None:
    assert found_in(tmp_path, "record.jsonl", TEXT.encode()) == []
    assert len(found_in(tmp_path, "record.jsonl", (TEXT + KEY).encode())) == 1
    assert len(found_in(tmp_path, "other.jsonl", TEXT.encode())) == 1


RUN = """
import logging
def test_it(tmp_path):
    {line}
"""


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("(tmp_path / 'server.log').write_text('all well')", 0),
        ("(tmp_path / 'server.log').write_text('Bearer ' + KEY)", 1),
        ("print('Bearer ' + KEY)", 1),
        ("logging.getLogger().warning(KEY)", 1),
    ],
)
def test_a_green_run_fails_with_it(tmp_path: Path, line: str, status: int) -> None:
    test = tmp_path / "test_run.py"
    test.write_text(f"from tests.support.plants import CLIENT_KEY as KEY\n{RUN.format(line=line)}")
    # Its folder is beside, not below: this run's own search comes later.
    base = tmp_path / "base"
    arguments = [
        "-p",
        "tests.support.secret_grep",
        "-p",
        "no:cacheprovider",
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *arguments,
            "--rootdir",
            str(tmp_path),
            f"--basetemp={base}",
            str(test),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert ("secrets and texts where none may be" in done.stdout) == bool(status)
    assert KEY not in done.stdout
    for file in base.rglob("*.log"):
        file.unlink()
