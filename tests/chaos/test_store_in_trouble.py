"""The store of a rollout locked, full, corrupted, gone and failing over, while 50 clients ask.

No request waits for it or is lost. The canary keeps the weight that it had, and what is counted meanwhile is
written when the store works again.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.load import Load, under_load
from tests.support.mesh import LIMIT_S, Mesh, running_mesh
from tests.support.redis_server import running_redis
from tests.support.tcp_forward import Forward

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = Path(__file__).with_name("store.yaml")
HALF = 0.5


@asynccontextmanager
async def a_mesh(folder: Path, store: str) -> AsyncIterator[Mesh]:
    environ = {"ROLLOUT_STORE": store}
    async with running_mesh(CONFIG, folder, "openai", "coder", "next", environ=environ) as mesh:
        for provider in mesh.providers.values():
            provider.keep_bodies = False
        yield mesh


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def in_a_file(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("store")
    (folder / "state").mkdir()
    async with a_mesh(folder, str(folder / "state" / "rollouts.sqlite")) as mesh:
        yield mesh


async def until(mesh: Mesh, wanted: float, name: str, **labels: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await mesh.counted(f"arch_ext_proc_rollout_{name}", **labels) != wanted:
            await asyncio.sleep(0.05)


async def is_down(mesh: Mesh) -> None:
    await until(mesh, 0, "store_up")


async def fails(mesh: Mesh, failure: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await mesh.counted("arch_ext_proc_rollout_store_errors_total", failure=failure):
            await asyncio.sleep(0.05)


async def drives_again(mesh: Mesh, load: Load) -> None:
    """The store works, and what the canary answered from now on is counted there."""
    await until(mesh, 1, "store_up")
    await until(mesh, 1, "lease_held")
    exposed = await mesh.counted("arch_ext_proc_rollout_exposed_requests")
    await load.decides()
    async with asyncio.timeout(LIMIT_S):
        while await mesh.counted("arch_ext_proc_rollout_exposed_requests") <= exposed:
            await asyncio.sleep(0.05)


async def assert_nobody_noticed(mesh: Mesh, load: Load) -> None:
    assert (load.failures, load.undecided) == ([], 0)
    assert set(load.reasons) <= {"policy", "pinned"}
    assert await mesh.counted("arch_ext_proc_rollout_weight") == HALF
    assert all(mesh.providers[name].seen for name in ("coder", "next"))


@contextmanager
def locked(file: Path, _: int) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full(_: Path, pid: int) -> Iterator[None]:
    """Nothing can be written any more, the log included."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def corrupted(file: Path, _: int) -> Iterator[None]:
    """Other bytes in its place, which a person removes at the end."""
    for each in file.parent.iterdir():  # SQLite would read what it needs from its journal
        each.unlink()
    file.write_bytes(b"\xff" * (1 << 16))
    yield
    file.unlink()


@contextmanager
def replaced_by_a_folder(file: Path, _: int) -> Iterator[None]:
    for each in file.parent.iterdir():
        each.unlink()
    file.mkdir()
    yield
    file.rmdir()


Trouble = Callable[[Path, int], AbstractContextManager[None]]


@pytest.mark.parametrize(
    "trouble",
    [locked, full, corrupted, replaced_by_a_folder],
    ids=lambda trouble: trouble.__name__.replace("_", " "),
)
async def test_a_store_in_trouble_costs_no_request_and_no_weight(in_a_file: Mesh, trouble: Trouble) -> None:
    mesh = in_a_file
    mesh.forget()
    async with under_load(mesh, by_policy_every=1) as load:
        await drives_again(mesh, load)
        with trouble(Path(mesh.stack.environ["ROLLOUT_STORE"]), mesh.stack.server.pid):
            await is_down(mesh)
            await load.decides()
        await drives_again(mesh, load)
    await assert_nobody_noticed(mesh, load)


@pytest.mark.parametrize("how", ["deleted", "renamed"])
async def test_a_store_that_is_taken_away_is_made_anew(in_a_file: Mesh, how: str) -> None:
    mesh, file = in_a_file, Path(in_a_file.stack.environ["ROLLOUT_STORE"])
    mesh.forget()
    async with under_load(mesh, by_policy_every=1) as load:
        await drives_again(mesh, load)
        if how == "deleted":
            for each in file.parent.iterdir():
                each.unlink()
        else:
            file.rename(file.with_name("elsewhere"))
        async with asyncio.timeout(LIMIT_S):
            while not file.exists():
                await asyncio.sleep(0.05)
        await drives_again(mesh, load)
    await assert_nobody_noticed(mesh, load)
    with closing(sqlite3.connect(file)) as found:
        assert [policy for (policy,) in found.execute("SELECT policy FROM states")] == ["code"]


async def test_a_redis_that_hangs_dies_or_fails_over_costs_no_request_and_no_weight(
    tmp_path: Path,
) -> None:
    async with running_redis(tmp_path) as first, running_redis(tmp_path) as second, Forward() as name:
        await second.command("REPLICAOF", "127.0.0.1", str(first.port))
        name.to = first.port
        async with a_mesh(tmp_path, f"redis://127.0.0.1:{name.port}/0") as mesh:
            async with under_load(mesh, by_policy_every=1) as load:
                await drives_again(mesh, load)

                first.process.send_signal(signal.SIGSTOP)
                await is_down(mesh)
                await load.decides()
                first.process.send_signal(signal.SIGCONT)
                await drives_again(mesh, load)

                first.process.kill()
                await is_down(mesh)
                await load.decides()
                name.to = second.port
                await fails(mesh, "read_only")
                await load.decides()
                await second.command("REPLICAOF", "NO", "ONE")
                await drives_again(mesh, load)
            await assert_nobody_noticed(mesh, load)
