"""Rollouts over the admin API and the command line, against a real controller: who may do what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ext_proc.admin.app import AdminServer, Sources
from ext_proc.cli.main import main
from ext_proc.core.rollout_settings import PolicyRollout
from ext_proc.core.settings import Address
from ext_proc.core.types import Secret
from ext_proc.telemetry import Telemetry
from tests.support.replicas import Replica, a_plan, a_replica, settings_of

TOKEN = "the-admin-token-of-this-test"
POLICY = "code/generation: 100 %"
PATH = "/rollouts/code%2Fgeneration%3A%20100%20%25"


@dataclass
class Admin:
    url: str
    replica: Replica
    client: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.client.get(self.url + path) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = json.dumps({} if body is None else body)
        headers = {"content-type": "application/json", **headers}
        async with self.client.post(self.url + path, data=data, headers=headers) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def an_admin(file: Path, token: str | None = None, host: str = "127.0.0.1") -> AsyncIterator[Admin]:
    plan = a_plan(policy=POLICY, interval_s=3600.0)
    replica = a_replica(file, settings=settings_of(PolicyRollout(plan, baseline="vllm/present")))
    server = AdminServer(
        Address(host, 0),
        Telemetry(),
        is_ready=lambda: True,
        sources=Sources(rollouts=lambda: replica.controller),
        token=lambda: Secret(token) if token else None,
    )
    await replica.controller.start()
    port = await server.start()
    try:
        async with aiohttp.ClientSession() as client:
            yield Admin(f"http://127.0.0.1:{port}", replica, client)
    finally:
        await server.stop()
        await replica.controller.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rollouts.sqlite"


async def test_what_is_declared_stands_beside_what_is(file: Path) -> None:
    async with an_admin(file) as admin:
        status, found = await admin.get(PATH)
        assert status == 200
        assert found["declared"]["steps"] == ["5 %", "analysis", "25 %", "analysis", "100 %"]
        assert (found["declared"]["baseline"], found["declared"]["target"]) == ("vllm/present", "vllm/next")
        current = found["current"]
        assert (current["phase"], current["weight"], current["step"]) == ("progressing", 5.0, 1)
        assert current["waits_for"] == ["the canary has had 0 of 2 requests"]
        assert found["replica"] == {"name": "a", "leads": True, "store": "ok"}
        assert (await admin.get("/rollouts"))[1]["rollouts"][0]["policy"] == POLICY


async def test_the_history_is_told_oldest_first(file: Path) -> None:
    async with an_admin(file) as admin:
        status, found = await admin.get(f"{PATH}/history")
        assert status == 200
        assert [event["cause"] for event in found["events"]] == ["started", "step"]
        assert found["events"][1]["after_per_10k"] == 500
        assert len((await admin.get(f"{PATH}/history?limit=1"))[1]["events"]) == 1
        assert (await admin.get(f"{PATH}/history?limit=x"))[0] == 400


async def test_what_is_not_there_is_not_found(file: Path) -> None:
    async with an_admin(file) as admin:
        assert await admin.get("/rollouts/legal") == (
            404,
            {"error": 'no rollout of a policy "legal" is declared'},
        )
        assert (await admin.post("/rollouts/legal/abort"))[0] == 404
        assert (await admin.post(f"{PATH}/destroy"))[0] == 404


async def test_a_command_is_done_and_says_by_whom(file: Path) -> None:
    async with an_admin(file) as admin:
        status, found = await admin.post(f"{PATH}/abort", {"by": "me"})
        assert (status, found["result"], found["current"]["phase"]) == (200, "done", "aborted")
        assert (await admin.get(f"{PATH}/history"))[1]["events"][-1]["by"] == "me"
        status, found = await admin.post(f"{PATH}/abort")
        assert (status, found) == (409, {"error": "it is aborted"})


@pytest.mark.parametrize("body", [[], {"by": 1}, {"full": "yes"}])
async def test_a_body_that_makes_no_sense_is_refused(file: Path, body: Any) -> None:
    async with an_admin(file) as admin:
        assert (await admin.post(f"{PATH}/abort", body))[0] == 400
        assert admin.replica.controller.report(POLICY)["current"]["phase"] == "progressing"


@pytest.mark.parametrize("given", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x"])
async def test_with_a_token_in_the_file_a_change_needs_it(file: Path, given: str | None) -> None:
    async with an_admin(file, TOKEN) as admin:
        headers = {"authorization": given} if given else {}
        status, found = await admin.post(f"{PATH}/abort", **headers)
        assert (status, found) == (401, {"error": "this needs admin.token as a bearer token"})
        assert (await admin.get(PATH))[1]["current"]["phase"] == "progressing"
        assert (await admin.post(f"{PATH}/abort", authorization=f"Bearer {TOKEN}"))[0] == 200


async def test_without_a_token_only_a_loopback_address_takes_changes(file: Path) -> None:
    async with an_admin(file, host="0.0.0.0") as admin:
        assert (await admin.post(f"{PATH}/abort"))[0] == 403
        assert (await admin.get(PATH))[1]["current"]["phase"] == "progressing"


async def test_a_page_in_a_browser_changes_nothing(file: Path) -> None:
    async with an_admin(file) as admin:
        form = await admin.post(f"{PATH}/abort", **{"content-type": "text/plain"})
        rebound = await admin.post(f"{PATH}/abort", host="evil.example:9902")
        assert (form[0], rebound[0]) == (403, 403)
        assert (await admin.get(PATH))[1]["current"]["phase"] == "progressing"


async def cli(capsys: pytest.CaptureFixture[str], admin: Admin, *arguments: str) -> tuple[int, str, str]:
    status = await asyncio.to_thread(main, ["rollout", *arguments, "--admin", admin.url])
    output = capsys.readouterr()
    return status, output.out, output.err


class TestCommandLine:
    async def test_list_and_show(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        async with an_admin(file) as admin:
            assert (await cli(capsys, admin, "list"))[1] == (
                "POLICY                  CANARY     PHASE        STEP  WEIGHT  EXPOSED  WHY\n"
                "code/generation: 100 %  vllm/next  progressing  2/5   5 %     0        weight 5 %\n"
            )
            lines = (await cli(capsys, admin, "show", POLICY))[1].splitlines()
            assert lines[0] == "code/generation: 100 %: vllm/present → vllm/next"
            assert "  steps      5 %, ▸ analysis, 25 %, analysis, 100 %" in lines
            assert "  waits for  the canary has had 0 of 2 requests" in lines
            found = json.loads((await cli(capsys, admin, "show", POLICY, "--json"))[1])
            assert found["current"]["weight"] == 5.0

    async def test_steering_and_history(
        self, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("THE_TOKEN", TOKEN)
        async with an_admin(file, TOKEN) as admin:
            status, _, error = await cli(capsys, admin, "pause", POLICY)
            assert (status, error) == (
                1,
                "arch-ext-proc rollout: this needs admin.token as a bearer token\n",
            )
            given = ("--token-env", "THE_TOKEN")
            paused = await cli(capsys, admin, "pause", POLICY, *given)
            assert paused == (0, f"{POLICY}: paused at 5 %: paused\n", "")
            assert (await cli(capsys, admin, "resume", POLICY, *given))[0] == 0
            promoted = await cli(capsys, admin, "promote", POLICY, "--full", *given)
            assert promoted[1] == f"{POLICY}: promoted at 100 %: promoted: vllm/next has everything\n"
            again = await cli(capsys, admin, "promote", POLICY, "--full", *given)
            assert (again[0], again[2]) == (1, "arch-ext-proc rollout: it is promoted\n")
            assert (await cli(capsys, admin, "start", POLICY, *given))[0] == 0
            assert (await cli(capsys, admin, "abort", POLICY, *given))[0] == 0
            table = (await cli(capsys, admin, "history", POLICY))[1].splitlines()
            assert table[0].split() == ["TIME", "RUN", "CAUSE", "WEIGHT", "PHASE", "EXPOSED", "WHAT"]
            assert len(table) == 9
            lines = (await cli(capsys, admin, "history", POLICY, "--json", "--limit", "2"))[1].splitlines()
            assert [json.loads(line)["cause"] for line in lines] == ["step", "command"]

    async def test_nobody_answers(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        async with an_admin(tmp_path / "file") as admin:
            pass
        status, _, error = await cli(capsys, admin, "list")
        assert status == 1
        assert error.startswith(f"arch-ext-proc rollout: no answer from {admin.url}: ")


CONFIG = """\
model_providers:
  - {model: openai/a, default: true}
  - {model: vllm/next, cluster: next}
affinity: {salt: 0123456789abcdef}
routing_preferences:
  - {name: "code/generation: 100 %", description: about code, models: [a], rollout: {canary: vllm/next}}
"""


async def checked(capsys: pytest.CaptureFixture[str], config: Path) -> list[str]:
    assert await asyncio.to_thread(main, ["check", str(config)]) == 0
    return capsys.readouterr().out.splitlines()[1:]


async def test_check_says_where_a_rollout_stands(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "arch_config.yaml"
    config.write_text(CONFIG + f"rollouts: {{store: {file}}}\n")
    name = f'rollout of "{POLICY}"'
    assert await checked(capsys, config) == [f"{name}: not started yet"]
    assert not file.exists()
    async with an_admin(file):
        assert await checked(capsys, config) == [
            f"{name}: progressing at 5 % (vllm/next), step 2 of 7: weight 5 %, 0 answers exposed"
        ]
    file.write_text("no database")
    assert await checked(capsys, config) == ["rollouts: the store cannot be read (corrupt)"]
