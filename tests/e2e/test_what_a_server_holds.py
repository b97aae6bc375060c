"""What memory a server takes for reading, by what can be counted: its arenas."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from pathlib import Path

import pytest

from ext_proc.cli.arenas import MOST
from tests.support.mesh import CODING, CONFIGS, chat, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

ARENA_BYTES = 64 << 20
"""Of address space, aligned to as many. Source: HEAP_MAX_SIZE of glibc's malloc."""


def arenas(maps: str) -> list[int]:
    """Where a process has arenas besides the heap, its first: a part in use, and one reserved."""
    regions = [
        (int(start, 16), int(end, 16), rights)
        for start, end, rights in re.findall(r"^(\w+)-(\w+) (\S+) ", maps, re.M)
    ]
    return [
        start
        for (start, end, rights), (reserved, last, none) in pairwise(regions)
        if start % ARENA_BYTES == 0 and last == start + ARENA_BYTES
        if (rights, none, reserved) == ("rw-p", "---p", end)
    ]


async def test_a_server_has_few_arenas_however_many_threads_read_for_it(tmp_path: Path) -> None:
    async with running_mesh(CONFIGS / "main.yaml", tmp_path, "openai", "coder", "anthropic", "local") as mesh:
        replies = await asyncio.gather(*(mesh.send(chat(CODING + "x" * 100_000)) for _ in range(50)))
        assert {reply.status for reply in replies} == {200}
        maps = Path(f"/proc/{mesh.stack.server.pid}/maps").read_text()
    assert len(arenas(maps)) == MOST - 1
