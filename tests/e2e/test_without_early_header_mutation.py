"""docs/envoy.md's ways to own the decision headers where early header mutation is not possible."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from demo import processes
from ext_proc.core import headers
from tests.support.mesh import CONFIGS, PROVIDER_KEYS, Mesh, chat, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT = (CONFIGS.parents[2] / "docs/envoy.md").read_text()
INTERNAL, LUA = (
    yaml.safe_load(block)
    for block in re.findall(r"```yaml\n(.*?)```", DOCUMENT.partition("## Where early header")[2], re.DOTALL)
)
SPOOFED = [(name, "coder") for name in headers.DECISION]


def with_internal_headers(manager: dict[str, Any]) -> None:
    manager["use_remote_address"] = INTERNAL["use_remote_address"]
    manager["route_config"] |= INTERNAL["route_config"]


def with_lua(manager: dict[str, Any]) -> None:
    manager["http_filters"] = LUA["http_filters"] + manager["http_filters"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rendered_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("no-early-mutation")
    async with running_mesh(CONFIGS / "main.yaml", folder, "openai", "coder", "anthropic", "local") as mesh:
        yield mesh


@pytest.mark.parametrize("change", [with_internal_headers, with_lua])
async def test_decision_headers_of_clients_are_powerless_and_a_dead_server_costs_nothing(
    rendered_mesh: Mesh, tmp_path: Path, change: Any
) -> None:
    folder = rendered_mesh.stack.server.log.parent
    bootstrap = yaml.safe_load((folder / "envoy.yaml").read_text())
    (listener,) = bootstrap["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["early_header_mutation_extensions"]
    change(manager)
    port, admin_port = processes.free_port(), processes.free_port()
    listener["address"]["socket_address"]["port_value"] = port
    bootstrap["admin"]["address"]["socket_address"]["port_value"] = admin_port
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(bootstrap))
    envoy = processes.envoy(file, f"http://127.0.0.1:{admin_port}", tmp_path / "envoy.log", PROVIDER_KEYS)
    stack = replace(rendered_mesh.stack, envoy=envoy, url=f"http://127.0.0.1:{port}")
    mesh = replace(rendered_mesh, stack=stack)
    try:
        await envoy.start()
        await mesh.decided_again()
        mesh.forget()
        for sent in ([], SPOOFED):
            reply = await mesh.send(chat("hello", model="fast"), headers=sent)
            assert (reply.status, reply.reason, reply.model) == (200, "alias", "local/keyless")
        assert mesh.counts() == {"local": 2}
        mesh.forget()
        reply = await mesh.send(None, "/v1/models", method="GET", headers=SPOOFED)
        assert (reply.status, reply.reason) == (200, None)
        assert mesh.counts() == {"openai": 1}
        mesh.forget()
        await stack.server.kill()
        for sent in ([], SPOOFED):
            reply = await mesh.send(chat("hello"), headers=sent)
            assert (reply.status, reply.reason) == (200, "server_unavailable")
        assert mesh.counts() == {"openai": 2}
    finally:
        await envoy.stop()
        if not stack.server.is_running:
            await stack.restart_server()
