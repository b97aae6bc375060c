"""Unix sockets: their modes, and what killed and living processes leave at a path."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ext_proc.transport import unix


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_socket_has_its_mode_whatever_the_processes(tmp_path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        with unix.bound(tmp_path / "s", mode):
            assert (tmp_path / "s").stat().st_mode & 0o777 == mode
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
        left.listen()
    assert (tmp_path / "s").exists()
    with unix.bound(tmp_path / "s", 0o660) as fresh:
        fresh.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))


def test_nobody_takes_a_living_ones_socket_away(tmp_path: Path) -> None:
    with unix.bound(tmp_path / "s", 0o660) as living:
        living.listen()
        with pytest.raises(OSError, match="in use"):
            unix.free(tmp_path / "s")
        assert (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        unix.bound(path, 0o660)
    assert os.path.lexists(path)


def test_no_socket_at_all_is_fine(tmp_path: Path) -> None:
    unix.free(tmp_path / "s")
