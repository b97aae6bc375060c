"""The controller on a real store, turn by turn: what is in force when, and what survives what."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ext_proc.core.errors import CommandRefused, StoreFailure
from ext_proc.core.ports import CommandResult
from ext_proc.core.rollout_plan import Pause, RolloutPlan, SetWeight
from ext_proc.core.rollout_settings import PolicyRollout
from ext_proc.core.rollout_types import Command, Phase, Verb
from ext_proc.rollouts import controller as controller_module
from ext_proc.rollouts.sqlite_store import SqliteStore
from tests.support.replicas import POLICY, Replica, a_plan, a_replica, an_answer, settings_of

Start = Callable[..., Replica]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rollouts.sqlite"


@pytest_asyncio.fixture
async def replica(file: Path) -> AsyncIterator[Start]:
    """Starts controllers on one file that are stopped at the test's end."""
    async with AsyncExitStack() as cleanup:

        def start(plan: RolloutPlan | None = None, **changes: Any) -> Replica:
            one = a_replica(changes.pop("store", file), plan, **changes)
            cleanup.push_async_callback(one.controller.stop)
            return one

        yield start


async def test_a_healthy_canary_walks_its_steps_and_is_promoted(replica: Start) -> None:
    one = replica()
    await one.walk(10_000)
    assert one.weights == [500, 2_500, 10_000]
    await one.turns()
    assert one.state.phase is Phase.PROMOTED
    assert await one.causes() == [
        *("started", "step", "analysis_passed", "step", "analysis_passed", "step", "completed")
    ]


async def test_without_traffic_nothing_happens(replica: Start) -> None:
    one = replica()
    await one.turns(20)
    assert (one.state.phase, one.weight) == (Phase.PROGRESSING, 500)
    assert await one.causes() == ["started", "step"]
    labels = {"failure": "other"}
    assert one.registry.get_sample_value("arch_ext_proc_rollout_store_errors_total", labels) is None


async def test_the_exposed_requests_are_counted_over_all_steps(replica: Start) -> None:
    one = replica()
    await one.walk(2_500)
    before = one.controller.rollouts[POLICY].exposed
    one.answers(5)
    one.answers(7, arm="baseline")
    await one.turns()
    assert one.controller.rollouts[POLICY].exposed == before + 5


async def test_a_late_answer_of_the_last_run_is_not_exposed_by_the_next(replica: Start) -> None:
    one = replica()
    await one.walk(500)
    for verb in (Verb.ABORT, Verb.START):
        one.controller.rollouts[POLICY].pending.commands.append(Command(verb))
        one.answers(1)
        await one.turns()
    assert one.controller.rollouts[POLICY].exposed == 0
    one.answers(2)
    await one.turns()
    assert one.controller.rollouts[POLICY].exposed == 2


async def test_a_canary_that_crosses_a_hard_limit_is_stopped_with_that_answer(replica: Start) -> None:
    one = replica()
    await one.walk(2_500)
    one.answers(2, status=500)
    assert one.weight == 2_500
    one.answers(1, status=500)
    assert one.weight == 0
    await one.turns()
    assert (one.state.phase, one.state.weight_per_10k) == (Phase.ABORTED, 0)
    assert (await one.causes())[-1] == "hard_limit"
    await one.turns(5)
    assert one.weight == 0


async def rollout_at(one: Replica, state: str) -> None:
    match state:
        case "waiting":
            await one.turns()
        case "progressing":
            await one.walk(2_500)
        case "paused":
            await one.walk(2_500)
            one.controller.rollouts[POLICY].pending.commands.append(Command(Verb.PAUSE))
            await one.turns()
        case "promoted":
            await one.walk(10_000)
            await one.turns()
        case "aborted":
            await one.walk(2_500)
            one.answers(3, status=500)
            await one.turns()


@pytest.mark.parametrize(
    ("state", "weight"),
    [("waiting", 0), ("progressing", 2_500), ("paused", 2_500), ("promoted", 10_000), ("aborted", 0)],
)
async def test_it_comes_back_where_it_was(file: Path, replica: Start, state: str, weight: int) -> None:
    plan = a_plan(auto_start=state != "waiting")
    # Never stopped, as if it had been killed.
    before = a_replica(file, plan, lease_s=0.001)
    await rollout_at(before, state)
    assert (before.state.phase, before.weight) == (Phase(state), weight)
    # A long interval, so that nothing but the store says where it is.
    after = replica(a_plan(auto_start=state != "waiting", interval_s=3600.0), name="b")
    await after.controller.start()
    assert after.weights == [weight]
    assert after.state.phase is Phase(state)
    assert after.controller.rollouts[POLICY].exposed == before.controller.rollouts[POLICY].exposed
    await before.controller.stop()


async def test_what_was_counted_before_a_crash_still_counts(file: Path, replica: Start) -> None:
    plan = a_plan(min_requests=10)
    before = a_replica(file, plan, lease_s=0.001)
    await before.walk(500)
    before.answers(6)
    await before.turns()
    after = replica(plan, name="b")
    await after.turns()
    assert after.state.evidence.requests >= 6
    after.answers(4)
    await after.turns(2)
    assert after.weight == 2_500
    await before.controller.stop()


class Broken:
    """While in use, the file cannot be opened."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._aside = file.with_suffix(".aside")

    def __enter__(self) -> None:
        os.replace(self._file, self._aside)
        self._file.mkdir()

    def __exit__(self, *_: object) -> None:
        self._file.rmdir()
        os.replace(self._aside, self._file)


async def test_without_the_store_a_weight_stays_and_does_not_rise(file: Path, replica: Start) -> None:
    one = replica()
    await one.walk(500)
    with Broken(file):
        one.answers(10)
        await one.turns(5)
        assert one.weight == 500
        assert one.controller.failure is StoreFailure.UNREACHABLE
        assert one.registry.get_sample_value(
            "arch_ext_proc_rollout_store_errors_total", {"failure": "unreachable"}
        )
        assert one.registry.get_sample_value("arch_ext_proc_rollout_store_up") == 0
    await one.turns(2)
    assert one.weight == 2_500
    assert one.controller.failure is None
    # What was counted meanwhile was not lost.
    assert one.controller.rollouts[POLICY].exposed >= 10


async def test_without_the_store_a_hard_limit_still_stops_the_canary(file: Path, replica: Start) -> None:
    one = replica()
    await one.walk(500)
    with Broken(file):
        one.answers(3, status=500)
        assert one.weight == 0
        await one.turns(3)
        assert one.weight == 0
    await one.turns()
    assert one.state.phase is Phase.ABORTED
    assert (await one.causes())[-1] == "hard_limit"


async def test_without_the_store_a_person_can_still_abort(file: Path, replica: Start) -> None:
    one = replica()
    await one.walk(500)
    with Broken(file):
        one.controller.rollouts[POLICY].pending.commands.append(Command(Verb.ABORT))
        await one.turns()
        assert one.weight == 0
    await one.turns()
    assert one.state.phase is Phase.ABORTED


async def test_a_store_that_was_lost_is_written_anew(file: Path, replica: Start) -> None:
    one = replica()
    await one.walk(2_500)
    for path in file.parent.iterdir():
        path.unlink()
    one.answers(1)
    await one.turns(2)
    assert one.weight == 2_500
    again = SqliteStore(str(file))
    assert '"weight_per_10k":2500' in (await again.load())[POLICY].document
    await again.close()


async def test_without_any_store_there_is_no_canary(tmp_path: Path, replica: Start) -> None:
    (tmp_path / "a-folder").mkdir()
    one = replica(store=tmp_path / "a-folder")
    await one.controller.start()
    one.answers(5)
    await one.turns(3)
    assert one.weights == [0]


async def test_a_state_that_cannot_be_read_is_left_alone(file: Path, replica: Start) -> None:
    store = SqliteStore(str(file))
    token = await store.acquire("somebody", 60) or 0
    await store.save(POLICY, '{"exposed": 0, "state": {"schema": 99}}', (), expected=0, token=token)
    await store.release("somebody")
    one = replica()
    await one.turns(3)
    assert one.weights == [0]
    with pytest.raises(CommandRefused, match="schema 99"):
        await one.controller.command(POLICY, Command(Verb.START))
    assert (await store.load())[POLICY].version == 1
    await store.close()


class TestReplicas:
    async def test_the_second_follows_the_first(self, replica: Start) -> None:
        one, two = replica(name="a"), replica(name="b")
        await one.walk(500)
        await two.turns()
        assert (one.controller.leads, two.controller.leads) == (True, False)
        assert two.weight == 500
        await one.walk(2_500)
        await two.turns()
        assert two.weights[-1] == 2_500

    async def test_what_the_second_counts_reaches_the_first(self, replica: Start) -> None:
        one, two = replica(name="a"), replica(name="b")
        await one.turns(2)
        await two.turns()
        assert one.weight == two.weight == 500
        # The first sees nothing itself.
        two.answers(5)
        await two.turns()
        await one.turns(2)
        assert one.weight == 2_500
        assert one.controller.rollouts[POLICY].exposed == 5

    async def test_a_hard_limit_crossed_at_the_second_stops_both(self, replica: Start) -> None:
        one, two = replica(name="a"), replica(name="b")
        await one.walk(500)
        await two.turns()
        two.answers(3, status=500)
        assert two.weight == 0
        await two.turns()
        assert two.weight == 0
        await one.turns()
        await two.turns()
        assert (one.weight, two.weight) == (0, 0)
        assert one.state.phase is two.state.phase is Phase.ABORTED
        assert (await one.causes())[-1] == "hard_limit"

    async def test_the_second_takes_over_from_one_that_stops(self, file: Path, replica: Start) -> None:
        one, two = a_replica(file, name="a"), replica(name="b")
        await one.walk(500)
        await two.turns()
        await one.controller.stop()
        await two.walk(2_500)
        assert two.controller.leads

    async def test_the_second_takes_over_from_one_that_dies(self, file: Path, replica: Start) -> None:
        one, two = a_replica(file, name="a", lease_s=0.001), replica(name="b")
        await one.walk(500)
        await two.walk(2_500)
        assert two.controller.leads
        # The first comes back from wherever it hung, and finds that it leads no more.
        one.answers(10)
        await one.turns(3)
        assert not one.controller.leads
        assert one.weight == two.weight
        await one.controller.stop()

    async def test_a_replica_with_another_target_in_its_file_gives_it_nothing(self, replica: Start) -> None:
        one, two = replica(name="a"), replica(a_plan(target="vllm/other"), name="b")
        await one.walk(2_500)
        await two.turns()
        assert two.weights == [0]

    async def test_a_command_at_the_second_is_done_by_the_first(self, replica: Start) -> None:
        one, two = replica(name="a"), replica(name="b")
        await one.controller.start()
        await two.controller.start()
        two.now = one.now
        assert await two.controller.command(POLICY, Command(Verb.ABORT, by="me")) is CommandResult.DONE
        assert two.state.phase is one.state.phase is Phase.ABORTED


class TestCommands:
    async def test_a_command_is_done_at_once(self, replica: Start) -> None:
        one = replica(a_plan(interval_s=3600.0))
        await one.controller.start()
        assert one.weight == 500
        assert await one.controller.command(POLICY, Command(Verb.PAUSE, by="me")) is CommandResult.DONE
        assert one.state.phase is Phase.PAUSED
        assert await one.controller.command(POLICY, Command(Verb.RESUME)) is CommandResult.DONE
        assert await one.controller.command(POLICY, Command(Verb.PROMOTE, full=True)) is CommandResult.DONE
        assert (one.state.phase, one.weight) == (Phase.PROMOTED, 10_000)
        assert (await one.causes())[2:] == ["command", "command", "command"]

    async def test_what_makes_no_sense_is_refused(self, replica: Start) -> None:
        one = replica()
        await one.controller.start()
        with pytest.raises(CommandRefused, match="has been started"):
            await one.controller.command(POLICY, Command(Verb.START))
        with pytest.raises(CommandRefused, match='no rollout of a policy "legal"'):
            await one.controller.command("legal", Command(Verb.START))

    async def test_while_the_store_is_gone_commands_wait_but_not_without_end(
        self, file: Path, replica: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(controller_module, "COMMAND_S", 0.01)
        one = replica()
        await one.controller.start()
        with Broken(file):
            for _ in range(controller_module.MAX_COMMANDS):
                waiting = await one.controller.command(POLICY, Command(Verb.ABORT))
                assert waiting is CommandResult.WAITING
            with pytest.raises(CommandRefused, match="too many"):
                await one.controller.command(POLICY, Command(Verb.ABORT))
            assert one.weight == 0


class TestConfiguration:
    async def test_another_target_in_the_file_is_another_rollout(self, replica: Start) -> None:
        one = replica()
        await one.walk(2_500)
        one.controller.configure(settings_of(PolicyRollout(a_plan(target="vllm/other"))))
        await one.turns()
        assert one.state.target == "vllm/other"
        assert 0 in one.weights[2:]
        assert "target_changed" in await one.causes()

    async def test_a_rollout_that_left_the_file_is_forgotten(self, replica: Start) -> None:
        one = replica()
        await one.walk(10_000)
        await one.turns()
        one.controller.configure(settings_of())
        await one.turns()
        assert one.applied[-1] == {}
        # The same target again, months later: it starts with a few, not with everything.
        one.controller.configure(settings_of(PolicyRollout(a_plan())))
        await one.turns()
        assert one.weight == 500

    async def test_a_rollout_that_stays_goes_on(self, replica: Start) -> None:
        one = replica()
        await one.walk(2_500)
        changed = a_plan(min_requests=1_000, steps=(*a_plan().steps[:4], SetWeight(5_000), Pause(None)))
        one.controller.configure(settings_of(PolicyRollout(changed)))
        await one.turns()
        assert (one.state.phase, one.weight) == (Phase.PAUSED, 2_500)


async def test_answers_of_policies_without_a_rollout_are_nothing(replica: Start) -> None:
    one = replica()
    await one.walk(500)
    one.controller.observed(an_answer(policy="legal", status=500))
    await one.turns()
    assert one.weight == 500
