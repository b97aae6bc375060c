"""`arch-ext-proc serve` where it cannot: it says why in a line, and leaves nothing open."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ext_proc.rollouts.sqlite_store import SqliteStore

LIMIT_S = 120.0
FILE = """
model_providers: [{{model: openai/small, default: true}}, {{model: openai/large}}]
routing_preferences:
  - {{name: code, description: writing code, models: [openai/small], rollout: {{canary: openai/large}}}}
affinity: {{salt: 0123456789abcdef}}
server: {{port: {port}, workers: {workers}}}
admin: {{port: {admin}}}
rollouts: {{store: {store}, lease: 5m}}
"""


def a_file(folder: Path, *, port: int = 0, admin: int = 0, workers: int = 1) -> Path:
    file = folder / "arch_config.yaml"
    file.write_text(FILE.format(port=port, admin=admin, workers=workers, store=folder / "store.sqlite"))
    return file


def serve(file: Path, *, writes_files: bool = True, **environ: str) -> tuple[int, list[str]]:
    """The exit status, and what it said but for its log."""
    done = subprocess.run(
        [sys.executable, "-m", "ext_proc", "serve", str(file), "--log-level", "ERROR"],
        env={**os.environ, **environ},
        preexec_fn=None if writes_files else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("which", ["port", "admin"])
async def test_a_taken_port_is_named_and_the_lease_is_given_back(tmp_path: Path, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = a_file(tmp_path, **{which: port})
        expected = f"arch-ext-proc serve: cannot listen at 127.0.0.1:{port}: Address already in use"
        assert serve(file) == (1, [expected])
    store = SqliteStore(str(tmp_path / "store.sqlite"))
    try:
        assert list(await store.load()) == ["code"]
        assert await store.acquire("another replica", 60) is not None
    finally:
        await store.close()


def test_workers_without_a_folder_for_their_sockets_are_not_started(tmp_path: Path) -> None:
    """Nothing can be written where no file may have a byte, whoever one is."""
    status, said = serve(a_file(tmp_path, port=1, workers=2), writes_files=False)
    assert status == 1
    (line,) = said
    assert line.startswith("arch-ext-proc serve: no folder for the workers' sockets: No usable temporary")
    assert line.endswith(": set TMPDIR to one that can be written")


def test_workers_whose_sockets_names_would_be_too_long_are_not_started(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    status, (line,) = serve(a_file(tmp_path, port=1, workers=2), TMPDIR=str(folder))
    assert status == 1
    assert line.endswith("/1.sock is too long for a socket: set TMPDIR to a shorter folder")
    assert list(folder.iterdir()) == []
