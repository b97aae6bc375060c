"""One mesh for all tests that break something: each finds it whole again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.mesh import Mesh, pytest_runtest_makereport, running_mesh

__all__ = ["pytest_runtest_makereport"]

CONFIG = Path(__file__).with_name("chaos.yaml")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broken_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("chaos")
    async with running_mesh(CONFIG, folder, "openai", "coder", connections=64) as mesh:
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
