"""Two workers behind the real Envoy: one admin port for both, reloads of both, sockets, and TLS."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.certificates import Authority
from tests.support.crew import all_serve, asked_of_each, free_ports, shown, workers_of
from tests.support.mesh import CONFIGS, LIMIT_S, Mesh, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXT = (CONFIGS / "workers.yaml").read_text()
REQUESTS = 20


def a_text(server: str = "", envoy: str = "") -> str:
    return TEXT.replace("server: {", f"server: {{{server}").replace("envoy:\n", f"envoy:\n{envoy}")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crew(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("crew")
    config = folder / "arch_config.yaml"
    config.write_text(TEXT)
    environ = {"ARCH_PORT": str(free_ports(2))}
    async with running_mesh(config, folder, "openai", "coder", environ=environ) as mesh:
        await all_serve(mesh)
        yield mesh


@pytest.fixture
def mesh(crew: Mesh) -> Mesh:
    crew.forget()
    return crew


async def ask(mesh: Mesh, times: int = REQUESTS) -> None:
    for _ in range(times):
        assert (await mesh.ask()).reason == "policy"


async def until_decided(mesh: Mesh, wanted: int) -> dict[str, Any]:
    """Wait until the overview counts so many: what it shows then."""
    async with asyncio.timeout(LIMIT_S):
        while sum((found := await shown(mesh, "/overview"))["decided"]) != wanted:
            await asyncio.sleep(0.05)
    overview: dict[str, Any] = found
    return overview


async def test_the_overview_counts_what_both_decided_and_events_tell_of_each(mesh: Mesh) -> None:
    """The first test here: nothing else has been decided in the last five minutes."""
    before = await asked_of_each(mesh)
    await ask(mesh)
    assert all(count > before[host] for host, count in (await asked_of_each(mesh)).items())
    found = await until_decided(mesh, REQUESTS)
    assert found["decision"]["count"] == REQUESTS
    assert [one["decided"] for one in found["policies"][0]["targets"]] == [REQUESTS]

    decisions: list[dict[str, Any]] = []
    async with asyncio.timeout(LIMIT_S), mesh.http.get(f"{mesh.stack.admin_url}/events") as answer:
        async for line in answer.content:
            name, _, value = line.decode().strip().partition(": ")
            if name == "data":
                decisions += [one for one in json.loads(value)["entries"] if one["kind"] == "decision"]
            if len(decisions) == REQUESTS:
                break
    assert {one["worker"] for one in decisions} == {0, 1}
    assert len({one["request_id"] for one in decisions}) == REQUESTS
    assert [one["at"] for one in decisions] == sorted(one["at"] for one in decisions)


async def test_the_page_and_a_streams_first_event_come_through_while_it_goes_on(mesh: Mesh) -> None:
    """A stream that is relayed whole, not piece by piece, would have no first line."""
    async with mesh.http.get(f"{mesh.stack.admin_url}/") as page:
        assert (page.status, page.content_type) == (200, "text/html")
    async with asyncio.timeout(LIMIT_S), mesh.http.get(f"{mesh.stack.admin_url}/events") as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert (await answer.content.readline()).startswith(b"id: ")
        assert not answer.content.at_eof()


async def reloads(mesh: Mesh, outcome: str) -> float:
    return await mesh.counted("arch_ext_proc_config_reloads_total", outcome=outcome)


async def until_reloaded(mesh: Mesh, wanted: float, outcome: str) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT_S):
        while await reloads(mesh, outcome) < wanted:
            await asyncio.sleep(0.05)
    found: dict[str, Any] = await shown(mesh, "/config")
    return found


async def test_a_changed_file_comes_into_force_in_both_and_a_bad_one_in_neither(mesh: Mesh) -> None:
    file = mesh.stack.config_file
    text, aside = file.read_text(), file.with_name("aside")
    (first,) = (await shown(mesh, "/config"))["revisions"]

    refused = await reloads(mesh, "refused")
    aside.write_text(text.replace("vllm/coder]", "vllm/cdr]"))
    os.replace(aside, file)
    found = await until_reloaded(mesh, refused + 2, "refused")
    assert 'there is no provider "vllm/cdr"' in found["last_reload"]["problems"][0]
    assert [one["last_reload"]["outcome"] for one in found["workers"]] == ["refused", "refused"]
    assert found["revisions"] == [first]
    await ask(mesh)

    good = await reloads(mesh, "ok")
    aside.write_text(text.replace("models: [vllm/coder]", "models: [openai/gpt-4o-mini]"))
    os.replace(aside, file)
    found = await until_reloaded(mesh, good + 2, "ok")
    (second,) = found["revisions"]
    assert second != first
    assert [one["last_reload"]["outcome"] for one in found["workers"]] == ["ok", "ok"]
    mesh.forget()
    await ask(mesh)
    assert mesh.counts() == {"openai": REQUESTS}


async def test_workers_on_sockets_are_both_asked(tmp_path: Path) -> None:
    path = tmp_path / "s"
    config = tmp_path / "arch_config.yaml"
    config.write_text(TEXT.replace('port: "${ARCH_PORT}"', f"socket: {path}", 1))
    async with running_mesh(config, tmp_path, "openai", "coder") as mesh:
        await all_serve(mesh)
        assert set(await asked_of_each(mesh)) == {str(path), f"{path}.1"}
        await ask(mesh)
        assert all((await asked_of_each(mesh)).values())
        assert {one["address"] for one in await workers_of(mesh)} == {f"unix:{path}", f"unix:{path}.1"}


async def test_both_workers_take_a_new_certificate(tmp_path: Path) -> None:
    authority, name = Authority(), "arch-ext-proc.test"
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    authority.certify(name).write(tmp_path, "server")
    tls = f"tls: {{certificate: {tmp_path}/server.crt, key: {tmp_path}/server.key}}, "
    config = tmp_path / "arch_config.yaml"
    config.write_text(a_text(tls, f"  ext_proc_tls: {{ca: {tmp_path}/ca.crt, name: {name}}}\n"))
    first = free_ports(2)
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    context.set_alpn_protocols(["h2"])

    async def certificates() -> set[bytes]:
        found = set()
        for port in (first, first + 1):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
            found.add(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            writer.close()
        return found

    environ = {"ARCH_PORT": str(first)}
    async with running_mesh(config, tmp_path, "openai", "coder", environ=environ) as mesh:
        await all_serve(mesh)
        await ask(mesh)
        (before,) = await certificates()
        authority.certify(name).write(tmp_path, "server")
        (after,) = await certificates()
        assert after != before
        await ask(mesh)
        assert all((await asked_of_each(mesh)).values())
