"""One mesh for all tests that only talk to it. Tests that break something have their own, in chaos/."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.mesh import CONFIGS, Mesh, pytest_runtest_makereport, running_mesh

__all__ = ["pytest_runtest_makereport"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("mesh")
    names = ("openai", "coder", "anthropic", "local")
    async with running_mesh(CONFIGS / "main.yaml", folder, *names, log_level="DEBUG") as mesh:
        yield mesh


@pytest.fixture
def mesh(shared_mesh: Mesh) -> Mesh:
    shared_mesh.forget()
    return shared_mesh
