"""Unix sockets: their file's mode is their access control, so it is right before anybody can connect."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_PATH_BYTES = 100
"""Of the 108 that Linux has room for (104 elsewhere), some are left for gRPC and a final zero."""


@contextmanager
def mode_of_new_files(mode: int) -> Iterator[None]:
    """Sockets made in here have exactly this mode.

    It holds for the whole process, so only for a moment at its start, when nothing else makes files.
    """
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)


def free(path: Path) -> None:
    """Remove the socket that a killed process left behind.

    Errors: OSError when somebody listens there, or when what is there is no socket.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "this is no socket, so it stays", str(path))
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its queue is full: somebody listens
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))


def bound(path: Path, mode: int) -> socket.socket:
    """A socket at this path that nobody can connect to yet, because it does not listen. Errors: OSError."""
    free(path)
    made = socket.socket(socket.AF_UNIX)
    try:
        with mode_of_new_files(mode):
            made.bind(str(path))
    except OSError as error:
        made.close()
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    return made
