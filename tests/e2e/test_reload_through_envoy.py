"""A changed file through Envoy: in force without a lost request, or refused and told."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from demo.stand_in import Behaviour
from ext_proc.config.load import load as load_file
from ext_proc.envoy_config import render_bootstrap
from tests.support.load import under_load
from tests.support.mesh import CODING, LIMIT_S, PROVIDER_KEYS, TRAVELLING, eventually, no_secret_in
from tests.support.reloaded import WRITING, Reloaded, a_file, reloaded_mesh
from tests.support.rollout_traffic import Rollout

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Reloaded]:
    folder = tmp_path_factory.mktemp("reload")
    store = str(folder / "rollouts.sqlite")
    async with reloaded_mesh(folder, a_file(), ROLLOUT_STORE=store, KEYS=str(folder)) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def reloaded(shared: Reloaded) -> AsyncIterator[Reloaded]:
    """The mesh with its first text in force."""
    async with asyncio.timeout(5 * LIMIT_S):
        if shared.file.read_text() != a_file():
            await shared.put(a_file())
        shared.mesh.forget()
        yield shared


async def served_by(reloaded: Reloaded, text: str = CODING) -> str | None:
    reply = await reloaded.mesh.ask(text)
    assert (reply.status, reply.reason) == (200, "policy")
    return reply.model


async def test_reloads_under_load_cost_no_request(reloaded: Reloaded) -> None:
    models = ("vllm/coder", "vllm/next")
    async with under_load(reloaded.mesh, by_policy_every=2) as load:
        for number in range(1, 6):
            await reloaded.put(a_file(coding=models[number % 2], described=f"{WRITING}, {number}"))
            await load.decides(20)
    assert load.failures == []
    assert load.undecided == 0
    assert await served_by(reloaded) == "vllm/next"


async def test_a_bad_file_changes_nothing_until_it_is_mended(reloaded: Reloaded) -> None:
    before = await reloaded.outcomes()
    reloaded.rename(a_file(coding="vllm/nxt"))
    found = await reloaded.after(before, "refused")
    assert found["last_reload"]["problems"] == [
        f'{reloaded.file}:10:14: there is no provider "vllm/nxt" — did you mean "vllm/next"?'
    ]
    log = reloaded.mesh.stack.server.log
    await eventually(lambda: 'there is no provider "vllm/nxt"' in log.read_text(), "its line in the log")
    assert await served_by(reloaded) == "vllm/coder"
    await reloaded.put(a_file(coding="vllm/next"))
    assert await served_by(reloaded) == "vllm/next"


async def test_a_file_cut_off_in_the_middle_a_missing_one_and_a_folder_change_nothing(
    reloaded: Reloaded,
) -> None:
    async with under_load(reloaded.mesh, by_policy_every=2) as load:
        await file_in_trouble(reloaded)
        await load.decides()
    assert (load.failures, load.undecided) == ([], 0)


async def file_in_trouble(reloaded: Reloaded) -> None:
    text, file = a_file(coding="vllm/next"), reloaded.file
    before = await reloaded.outcomes()
    file.write_text(text[: len(text) // 2])
    await reloaded.after(before, "refused")
    assert await served_by(reloaded) == "vllm/coder"

    before = await reloaded.outcomes()
    file.unlink()
    found = await reloaded.after(before, "refused")
    assert "there is no such file" in found["last_reload"]["problems"][0]

    before = await reloaded.outcomes()
    file.mkdir()
    reloaded.mesh.stack.server.send(signal.SIGHUP)
    found = await reloaded.after(before, "refused")
    assert "this is a directory" in found["last_reload"]["problems"][0]
    assert await served_by(reloaded) == "vllm/coder"

    file.rmdir()
    before = await reloaded.outcomes()
    file.write_text(text)
    await reloaded.after(before, "ok")
    assert await served_by(reloaded) == "vllm/next"


async def test_a_signal_reads_the_file_anew(reloaded: Reloaded) -> None:
    before = await reloaded.outcomes()
    reloaded.mesh.stack.server.send(signal.SIGHUP)
    found = await reloaded.after(before, "ok")
    assert found["last_reload"]["problems"] == []


async def test_another_router_decides_from_then_on(reloaded: Reloaded) -> None:
    assert await served_by(reloaded) == "vllm/coder"
    mesh = reloaded.mesh
    mesh.providers["next"].behave = Behaviour(text='{"route": "travel"}')
    router = "{type: openai, base_url: $NEXT_UPSTREAM, model: arch-router, prompt: archgw}"
    await reloaded.put(a_file(routing=f"{{router: {router}, deadline: 20s}}"))
    reply = await mesh.ask(CODING)
    assert (reply.policy, reply.model) == ("travel", "openai/gpt-4o-mini")


async def test_a_rotated_key_reaches_the_provider(reloaded: Reloaded) -> None:
    mesh, key = reloaded.mesh, Path(reloaded.mesh.stack.environ["KEYS"]) / "coder-key"
    key.write_text("sk-first\n")
    await reloaded.put(a_file(key="{file: '${KEYS}/coder-key'}"))
    await mesh.ask(CODING)
    assert mesh.only("coder").headers["authorization"] == "Bearer sk-first"
    mesh.forget()

    # As Kubernetes and careful people do it: never half a key.
    before = await reloaded.outcomes()
    aside = key.with_name("aside")
    aside.write_text("sk-second\n")
    os.replace(aside, key)
    shown = await reloaded.after(before, "ok")
    await mesh.ask(CODING)
    assert mesh.only("coder").headers["authorization"] == "Bearer sk-second"
    assert "sk-" not in str(shown)

    before = await reloaded.outcomes()
    key.write_text("")
    found = await reloaded.after(before, "refused")
    assert found["last_reload"]["problems"] == [
        f"{reloaded.file}:4:87: {key} is empty — it should hold the secret and nothing else"
    ]
    mesh.forget()
    await mesh.ask(CODING)
    assert mesh.only("coder").headers["authorization"] == "Bearer sk-second"


async def test_a_config_map_is_followed_through_its_links(tmp_path: Path) -> None:
    mount = tmp_path / "mount"

    def publish(version: str, text: str) -> None:
        """As the kubelet does it: a new folder, a link beside `..data`, one rename, the old folder gone."""
        folder = mount / f"..{version}"
        folder.mkdir(parents=True)
        (folder / "arch_config.yaml").write_text(text)
        old = mount / os.readlink(mount / "..data") if (mount / "..data").is_symlink() else None
        (mount / "..data_tmp").symlink_to(folder.name)
        os.replace(mount / "..data_tmp", mount / "..data")
        if old is not None:
            shutil.rmtree(old)

    publish("1", a_file())
    file = mount / "arch_config.yaml"
    file.symlink_to("..data/arch_config.yaml")
    async with reloaded_mesh(tmp_path, "", file) as reloaded, asyncio.timeout(5 * LIMIT_S):
        for version, model in (("2", "vllm/next"), ("3", "vllm/coder"), ("4", "vllm/next")):
            before = await reloaded.outcomes()
            publish(version, a_file(coding=model))
            await reloaded.after(before, "ok")
            assert await served_by(reloaded) == model


async def test_a_rollout_goes_on_over_a_reload(reloaded: Reloaded) -> None:
    def with_rollout(steps: str, canary: str = "vllm/next", described: str = WRITING) -> str:
        rollout = f"rollout: {{canary: {canary}, steps: {steps}, start: manual, interval: 1h}}"
        return a_file(extra=rollout, described=described)

    rollout = Rollout(reloaded.mesh, "code", CODING)
    await reloaded.put(with_rollout("[30, 50, 100]"))
    await rollout.tell("start")
    found = await rollout.becomes("progressing", weight=30.0)

    # Another description is nothing to a rollout.
    await reloaded.put(with_rollout("[30, 50, 100]", described="programs"))
    again = await rollout.show()
    for key in ("phase", "step", "run", "weight", "weight_here"):
        assert again["current"][key] == found["current"][key]

    # Other steps pause it, at the highest weight of them that is not above the present one.
    await reloaded.put(with_rollout("[20, 100]"))
    found = await rollout.becomes("paused", weight=20.0)
    assert found["current"]["weight_here"] == 20.0

    # Another canary is another rollout.
    await reloaded.put(with_rollout("[20, 100]", canary="openai/gpt-4o-mini"))
    found = await rollout.becomes("waiting")
    assert found["current"]["weight_here"] == 0.0
    assert {await served_by(reloaded) for _ in range(5)} == {"vllm/coder"}


async def test_a_key_on_its_way_goes_to_no_other_provider_though_its_header_leaves_the_file(
    tmp_path: Path,
) -> None:
    ranked = "vllm/coder, vllm/next"
    began = a_file(coding=ranked, key="$CODER_KEY, credential_header: x-coder-key")
    async with reloaded_mesh(tmp_path, began) as reloaded, asyncio.timeout(5 * LIMIT_S):
        mesh, answers = reloaded.mesh, asyncio.Event()
        await mesh.decided_again(CODING)
        mesh.forget()
        mesh.providers["coder"].behave = Behaviour(status=503, until=answers)
        asked = asyncio.get_running_loop().create_task(mesh.ask(CODING))
        await eventually(lambda: mesh.providers["coder"].seen, "the first provider is asked")
        await reloaded.put(a_file(coding=ranked))
        answers.set()
        assert (await asked).model == "vllm/next"
        key = PROVIDER_KEYS["CODER_KEY"]
        assert mesh.providers["coder"].seen[0].headers["x-coder-key"] == key
        assert no_secret_in(mesh.providers["next"].seen[0], key)


async def test_a_new_key_goes_to_no_host_that_envoy_still_has_from_before(tmp_path: Path) -> None:
    def a_text(upstream: str, key: str) -> str:
        providers = "\n".join(
            f"  - {{model: vllm/{name}, cluster: {name}, base_url: {upstream}, access_key: {key}}}"
            for name in ("moved", "copied")
        )
        shadow = "shadow: [{model: vllm/copied, percent: 100}]"
        return a_file(coding="vllm/moved, vllm/coder", providers=providers, extra=shadow)

    async with reloaded_mesh(tmp_path, a_text("$NEXT_UPSTREAM", "sk-the-old")) as reloaded:
        mesh, old = reloaded.mesh, reloaded.mesh.providers["next"]
        async with asyncio.timeout(5 * LIMIT_S):
            await mesh.decided_again(TRAVELLING)  # of which there is no copy on its way
            mesh.forget()
            assert (await mesh.ask(CODING)).model == "vllm/moved"
            await eventually(lambda: len(old.seen) == 2, "the answer's provider and the copy's are asked")
            assert {seen.headers["authorization"] for seen in old.seen} == {"Bearer sk-the-old"}
            await reloaded.put(a_text("$OPENAI_UPSTREAM", "sk-the-new"))
            mesh.forget()
            replies = [await mesh.ask(CODING, session=str(number)) for number in range(5)]
            assert {reply.model for reply in replies} == {"vllm/coder"}
            assert (await mesh.ask(CODING, model="vllm/moved")).model == "vllm/coder"
            assert await mesh.counted("arch_ext_proc_envoy_behind_total") > 0
            assert {"moved", "copied", "arch-shadow/vllm/copied"} <= set(
                (await reloaded.config())["envoy_lacks"]
            )
            assert mesh.counts() == {"coder": 6}


@pytest.mark.parametrize("body_mode", ["buffered", "streamed"])
async def test_a_file_of_which_envoy_has_no_host_leaves_envoy_to_its_own_default(
    tmp_path: Path, body_mode: str
) -> None:
    def a_text(upstream: str, key: str) -> str:
        whole = a_file(coding="openai/gpt-4o-mini")
        lines = [line for line in whole.splitlines() if "model: vllm/" not in line]
        one = "\n".join(lines).replace("\nenvoy:", f"\nenvoy:\n  body_mode: {body_mode}")
        return one.replace("base_url: $OPENAI_UPSTREAM", f"base_url: {upstream}, access_key: {key}")

    async with reloaded_mesh(tmp_path, a_text("$OPENAI_UPSTREAM", "sk-the-old")) as reloaded:
        mesh = reloaded.mesh
        async with asyncio.timeout(5 * LIMIT_S):
            await mesh.decided_again(CODING)
            await reloaded.put(a_text("$NEXT_UPSTREAM", "sk-the-new"))
            mesh.forget()
            assert (await mesh.ask(CODING)).status == 200
            assert no_secret_in(mesh.only("openai"), "sk-the-new")
            assert await mesh.counted("arch_ext_proc_envoy_behind_total") > 0


async def test_a_provider_that_envoy_lacks_gets_nothing_until_envoy_has_it(tmp_path: Path) -> None:
    new = "  - {model: vllm/other, cluster: other, base_url: $NEXT_UPSTREAM}"
    async with reloaded_mesh(tmp_path, a_file()) as reloaded, asyncio.timeout(5 * LIMIT_S):
        mesh = reloaded.mesh
        text = a_file(coding="vllm/other, vllm/coder", providers=new)
        async with under_load(mesh, by_policy_every=1) as load:
            await load.decides(20)
            await reloaded.put(text)
            await load.decides(60)
        assert (load.failures, load.undecided) == ([], 0)
        assert await served_by(reloaded) == "vllm/coder"
        # A client that names it is decided for as if it did not exist.
        assert (await mesh.ask(CODING, model="vllm/other")).model == "vllm/coder"
        assert await mesh.counted("arch_ext_proc_envoy_behind_total") > 0
        found = await reloaded.config()
        assert "other" in found["envoy_lacks"]

        # Envoy gets the file too, and the server needs no restart.
        configuration = load_file(
            reloaded.file, {**os.environ, **mesh.stack.environ}, lambda: b""
        ).configuration
        servers = (configuration.server.listen,)
        (tmp_path / "envoy.yaml").write_text(render_bootstrap(configuration, servers))
        await mesh.stack.envoy.stop()
        await mesh.stack.envoy.start()
        await mesh.decided_again(CODING)
        mesh.forget()
        reply = await mesh.ask(CODING)
        assert (reply.status, reply.model) == (200, "vllm/other")
        assert (await mesh.ask(CODING, model="vllm/other")).reason == "pinned"
