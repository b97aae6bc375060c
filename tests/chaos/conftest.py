"""One mesh for all tests that break something: each finds it whole again.

At the end of a run stands what each test's clients sent under load, and how much of it failed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.load import FINISHED
from tests.support.mesh import Mesh, pytest_runtest_makereport, running_mesh

__all__ = ["pytest_runtest_makereport"]

CONFIG = Path(__file__).with_name("chaos.yaml")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broken_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("chaos")
    async with running_mesh(CONFIG, folder, "openai", "coder") as mesh:
        for provider in mesh.providers.values():
            provider.keep_bodies = False  # of megabytes, many times over
        yield mesh


@pytest_asyncio.fixture(loop_scope="session")
async def mesh(broken_mesh: Mesh) -> AsyncIterator[Mesh]:
    await broken_mesh.decided_again()
    broken_mesh.forget()
    yield broken_mesh
    # Whatever the test left behind, failed or not.
    broken_mesh.forget()
    broken_mesh.stack.thaw_server()
    if not broken_mesh.stack.server.is_running:
        await broken_mesh.stack.restart_server()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if FINISHED:
        terminalreporter.section("requests under load")
        terminalreporter.write_line("  sent  undecided  failed  test")
    for test, load in FINISHED:
        figures = f"{load.requests:6}  {load.undecided:9}  {len(load.failures):6}"
        terminalreporter.write_line(f"{figures}  {test.removeprefix('tests/')}")
