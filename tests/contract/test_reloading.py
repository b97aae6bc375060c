"""One configuration after the other in one process: what a stream keeps, what survives, what is let go."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ext_proc.app.reloading import Reloader
from ext_proc.config.load import Loaded
from ext_proc.config.source import Source
from ext_proc.core import headers
from ext_proc.core.envoy_side import told, told_of
from ext_proc.core.errors import RouterError
from ext_proc.core.settings import Configuration, ShadowRouterSettings
from ext_proc.router.embedded import EmbeddedRouter
from ext_proc.telemetry.reloads import ReloadOutcome, ReloadTelemetry
from tests.support.mesh import CODING, eventually
from tests.support.reloading import SALT, Stream, a_file, a_reloader, ask, configuration, serving


async def test_a_stream_ends_with_what_it_began_with() -> None:
    async with serving(a_file()) as server:
        stream = Stream(server)
        await stream.begin()
        await server.apply(configuration(a_file(description="something else", weights=(0, 100))))
        assert (await ask(server))["x-arch-model"] == "vllm/c"
        assert (await stream.decided())["x-arch-model"] == "vllm/b"
        await stream.end()


OWN_HEADER = "access_key: sk-one, credential_header: x-own-key}"


async def test_a_key_written_before_a_reload_goes_to_no_other_provider() -> None:
    began = a_file().replace("access_key: sk-one}", OWN_HEADER)
    async with serving(began) as server:
        # The request is on its way with that key. Its header is renamed, and then the provider goes.
        await server.apply(configuration(began.replace("x-own-key", "x-other-key")))
        await server.apply(configuration(a_file()))
        stream = Stream(server, x_arch_role="attempt")
        await stream.begin(x_arch_attempt="vllm/b")
        changes = (await stream.answered()).request_body.response.header_mutation
        assert {"x-own-key", "x-other-key"} <= set(changes.remove_headers)
        await stream.end()


def key_at(host: str, key: str) -> str:
    """A file with a provider of this host and key, always in the same cluster, and then a default."""
    providers = f"""
  - {{model: vllm/kept, cluster: kept, base_url: "http://{host}:1/v1", access_key: {key}}}
  - {{model: openai/a, default: true, base_url"""
    return a_file().replace("\n  - {model: openai/a, default: true, base_url", providers)


@pytest.mark.parametrize("role", ["attempt", "shadow"])
async def test_a_key_goes_only_to_an_envoy_that_has_its_hosts(role: str) -> None:
    old, new, third = (key_at(f"host-{n}", f"sk-of-{n}") for n in (1, 2, 3))
    async with serving(old) as server:
        await server.apply(configuration(new))
        keys = []
        for text in (old, new, third):
            says = told_of(configuration(text).snapshot.targets["vllm/kept"])
            metadata = {"x_arch_role": role, "x_arch_target": "vllm/kept", headers.ENVOY_HAS: says}
            stream = Stream(server, **metadata)
            await stream.begin(x_arch_attempt="vllm/kept")
            answer = await stream.answered()
            changes = answer.request_body.response.header_mutation.set_headers
            keys += [each.header.raw_value for each in changes if each.header.key == "authorization"]
            assert answer.HasField("immediate_response") == (text is third)
            await stream.end()
        assert keys == [b"Bearer sk-of-1", b"Bearer sk-of-2"]


async def test_a_key_is_not_decided_for_an_envoy_that_has_other_hosts() -> None:
    old, new = (key_at(f"host-{n}", f"sk-of-{n}") for n in (1, 2))
    async with serving(old) as server:
        says = {headers.ENVOY_HAS: told(server.live.snapshot)}
        await server.apply(configuration(new))
        stream = Stream(server, **says)
        await stream.begin()
        found = await stream.decided("write a function", model="vllm/kept")
        await stream.end()
        assert (found["x-arch-model"], found["x-arch-reason"]) != ("vllm/kept", "pinned")
        assert "sk-of" not in str(found)
        assert "arch_ext_proc_envoy_behind_total 1.0" in server.telemetry.exposition().decode()


async def test_an_envoy_that_reaches_nobody_goes_on_by_itself() -> None:
    async with serving(a_file()) as server:
        stream = Stream(server, **{headers.ENVOY_HAS: "of-another-file"})
        await stream.ended()
        assert "arch_ext_proc_envoy_behind_total 1.0" in server.telemetry.exposition().decode()


async def test_a_replaced_router_is_closed_when_its_last_stream_has_ended() -> None:
    async with serving(a_file()) as server:
        streams = [Stream(server), Stream(server)]
        for stream in streams:
            await stream.begin()
        old = server.live.asker
        await server.apply(configuration(a_file(routing="{router: {type: embedded, threshold: 0.01}}")))
        assert server.routers_held() == 1
        await streams[0].end()
        assert server.routers_held() == 1
        # It answers still, and another asker has not taken its place.
        assert (await streams[1].decided())["x-arch-policy"] == "code"
        assert server.live.asker is not old
        await streams[1].end()
        assert server.routers_held() == 0


async def test_a_change_of_weights_or_keys_keeps_the_router_and_its_verdicts() -> None:
    async with serving(a_file()) as server:
        asker, policies = server.live.asker, server.live.snapshot.policies
        await ask(server)
        await server.apply(configuration(a_file(weights=(0, 100), key="sk-two")))
        assert server.live.asker is asker
        assert server.live.snapshot.policies is policies
        decided = await ask(server)
        assert decided["x-arch-model"] == "vllm/c"
        assert 'source="cache"} 1.0' in server.telemetry.exposition().decode()
        assert 'source="router"} 1.0' in server.telemetry.exposition().decode()
        credential = server.live.snapshot.default.credential
        assert credential is not None
        assert credential.value.reveal() == "Bearer sk-two"


async def test_what_envoy_must_be_rendered_for_is_named() -> None:
    other = a_file(rest="model_aliases: {quick: {target: vllm/d}}").replace(
        "http://b:1", "http://elsewhere:1"
    )
    other = other.replace(
        "routing_preferences", '  - {model: vllm/d, base_url: "http://d:1"}\nrouting_preferences'
    )
    other = other.replace("cluster: ", "").replace("message_timeout: 30s", "message_timeout: 31s")
    async with serving(a_file()) as server:
        waiting = await server.apply(configuration(other))
        assert waiting.for_envoy == ("envoy.message_timeout", "elsewhere_1", "d_1")
        # An Envoy rendered before says so, and goes where it can.
        has = told(configuration(a_file()).snapshot)
        seen = server.live.as_seen_by(has)
        assert seen.lacks == ("elsewhere_1", "d_1")
        assert seen.snapshot.routes["code"].arms[0].target.name == "vllm/c"
        assert server.live.as_seen_by(told(configuration(other).snapshot)) is server.live


def loaded_routers() -> set[int]:
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if type(thing) is EmbeddedRouter}


async def test_other_policies_keep_the_loaded_model() -> None:
    async with serving(a_file()) as server:
        before, asker = loaded_routers(), server.live.asker
        await server.apply(configuration(a_file(description="planning trips")))
        assert server.live.asker is not asker
        assert loaded_routers() == before
        await ask(server)


AGENT = [
    {"role": "user", "content": CODING},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": ""}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "42"},
]


async def test_an_agents_loop_stays_where_it_is_over_a_reload() -> None:
    async with serving(a_file()) as server:
        first = await ask(server, messages=AGENT[:1], user="u")
        assert first["x-arch-reason"] == "policy"
        await server.apply(configuration(a_file(description="another text")))
        assert (await ask(server, messages=AGENT, user="u"))["x-arch-reason"] == "session"


async def test_a_router_that_cannot_be_made_changes_nothing() -> None:
    missing = "{router: {type: transformers, model: /nowhere/at/all}, deadline: 5s}"
    async with serving(a_file()) as server:
        before = server.live
        threads = threading.active_count()
        with pytest.raises(RouterError):
            await server.apply(configuration(a_file(routing=missing, weights=(0, 100))))
        assert server.live is before
        assert (await ask(server))["x-arch-model"] == "vllm/b"
        await eventually(lambda: threading.active_count() <= threads + 1, "the failed router's threads end")


async def test_what_only_a_restart_changes_stays_and_is_named() -> None:
    rest = "server: {port: 1, drain: 3s}\nadmin: {port: 2}\nenvoy: {body_limit: 1MiB, message_timeout: 30s}"
    other = a_file(weights=(0, 100)).replace("envoy: {message_timeout: 30s}", rest)
    async with serving(a_file()) as server:
        port = server.configuration.server.listen.port
        waiting = await server.apply(configuration(other))
        assert waiting.for_restart == ("server.port", "server.drain", "admin.port", "envoy.body_limit")
        assert waiting.for_envoy == ()
        assert server.configuration.server.listen.port == port
        assert server.live.body_limit_bytes == 32 << 20
        assert (await ask(server))["x-arch-model"] == "vllm/c"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "arch_config.yaml"
    path.write_text(a_file())
    return path


async def test_a_bad_file_changes_nothing_and_is_told_with_its_line(file: Path) -> None:
    async with serving(a_file()) as server:
        reloader, before = a_reloader(server, file), server.live
        file.write_text(a_file(weights=(0, 100)).replace("affinity", "afinity"))
        found = await reloader.reload()
        assert found.outcome is ReloadOutcome.REFUSED
        assert [problem.partition(" — ")[0] for problem in found.problems] == [
            f'{file}:11:1: unknown key "afinity"'
        ]
        assert server.live is before
        text = server.telemetry.exposition().decode()
        assert 'arch_ext_proc_config_reloads_total{outcome="refused"} 1.0' in text
        assert "arch_ext_proc_config_last_reload_successful 0.0" in text
        file.write_text(a_file(weights=(0, 100)))
        assert (await reloader.reload()).outcome is ReloadOutcome.OK
        assert "arch_ext_proc_config_last_reload_successful 1.0" in server.telemetry.exposition().decode()


async def test_a_reload_finds_no_secret_to_show(file: Path) -> None:
    async with serving(a_file()) as server:
        file.write_text(a_file(key="sk-planted"))
        reloader = a_reloader(server, file)
        await reloader.reload()
        shown = json.dumps(reloader.shown())
        assert "sk-planted" not in shown
        assert SALT not in shown
        assert '"revision"' in shown


def router_threads() -> int:
    return sum(thread.name.startswith("embedded-router") for thread in threading.enumerate())


def with_another_router(text: str) -> Configuration:
    return configuration(text.replace("threshold: 0}", "threshold: 0.01}"))


async def test_a_shadow_router_that_cannot_be_made_holds_no_router() -> None:
    async with serving(a_file()) as server:
        wrong = configuration(a_file(description="another text"))
        shadow = ShadowRouterSettings(replace(wrong.router, type="none"), 10_000)
        with pytest.raises(RouterError):
            await server.apply(replace(wrong, shadow_router=shadow))
        threads = router_threads()
        await server.apply(with_another_router(a_file()))
        await eventually(lambda: router_threads() <= threads, "the replaced router's thread ends")


async def test_a_reload_that_is_given_up_while_its_store_is_silent_holds_no_router() -> None:
    connected = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as store, serving(a_file()) as server:
        port = store.sockets[0].getsockname()[1]
        threads = router_threads()
        new = with_another_router(a_file(rest=f'rollouts: {{store: "redis://127.0.0.1:{port}"}}'))
        applying = asyncio.get_running_loop().create_task(server.apply(new))
        async with asyncio.timeout(60):
            await connected.wait()
        assert router_threads() > threads
        applying.cancel()
        await asyncio.wait([applying])
        await eventually(lambda: router_threads() <= threads, "the given up router's thread ends")
        assert server.rollouts.controller is None


class BuggySource(Source):
    """Its first file meets a bug."""

    bugs = 1

    def load(self) -> Loaded:
        if self.bugs:
            self.bugs -= 1
            raise RecursionError("sk-planted")
        return super().load()


async def test_a_bug_while_a_file_is_read_is_not_the_last_reload(file: Path) -> None:
    async with serving(a_file()) as server:
        source = BuggySource(file, {}, lambda: b"salt")
        telemetry = ReloadTelemetry(server.telemetry.registry, server.routers_held)
        reloader = Reloader(server, source, Source(file, {}, lambda: b"salt").load(), telemetry)

        def last() -> str | None:
            found = reloader.shown()["last_reload"]
            return None if found is None else found["outcome"]

        reloader.start()
        try:
            reloader.ask()
            await eventually(lambda: last() == "failed", "a reload fails")
            assert "sk-planted" not in json.dumps(reloader.shown())
            reloader.ask()
            await eventually(lambda: last() == "ok", "the next one succeeds")
        finally:
            await reloader.stop()


async def test_a_router_that_hangs_is_given_up_and_the_next_file_comes_into_force(
    file: Path, tmp_path: Path
) -> None:
    async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    engine = tmp_path / "engine.sock"
    routing = f"{{router: {{type: transformers, model: m, engine: {engine}}}, deadline: 5s}}"
    async with await asyncio.start_unix_server(hangs, engine), serving(a_file()) as server:
        source = Source(file, {}, lambda: b"salt")
        told = ReloadTelemetry(server.telemetry.registry, server.routers_held)
        reloader, before = Reloader(server, source, source.load(), told, limit_s=0.5), server.live
        file.write_text(a_file(routing=routing))
        async with asyncio.timeout(60):
            found = await reloader.reload()
        assert (found.outcome, found.problems) == (ReloadOutcome.FAILED, ("not ready within 0.5 s",))
        assert server.live is before
        file.write_text(a_file(weights=(0, 100)))
        assert (await reloader.reload()).outcome is ReloadOutcome.OK
