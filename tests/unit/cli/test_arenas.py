"""However many threads ask for memory, it comes from few arenas."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

_THREADS = 8
_ASK = f"""
import ctypes, threading
from ext_proc.cli.arenas import keep_arenas_few

keep_arenas_few()
together = threading.Barrier({_THREADS})

def ask():
    together.wait()
    kept = bytes(100_000)  # beyond what Python hands out itself
    together.wait()

threads = [threading.Thread(target=ask) for _ in range({_THREADS})]
for each in threads: each.start()
for each in threads: each.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def arenas(environ: dict[str, str]) -> int:
    """How many a process has whose threads all asked at the same time."""
    told = subprocess.run(
        [sys.executable, "-c", _ASK], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    return len(re.findall("<heap nr=", told.stdout))


def test_threads_share_two_arenas() -> None:
    assert arenas({}) == 2


@pytest.mark.parametrize("wanted", [1, 4])
def test_an_operators_own_number_stands(wanted: int) -> None:
    assert arenas({"MALLOC_ARENA_MAX": str(wanted)}) == wanted
