"""What can be watched, and what must not show: access log, metrics, health, log lines."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from demo.processes import free_port
from ext_proc.server import wire
from tests.support.mesh import (
    CLIENT_KEY,
    CODING,
    CONFIGS,
    PROVIDER_KEYS,
    TRAVELLING,
    Mesh,
    access_log,
    chat,
    lines_of,
    run,
    running_mesh,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLANTED = "write a function in code for the secret project Quarzklee"


async def test_the_decision_reaches_envoys_access_log_as_dynamic_metadata_and_no_secret_any_log(
    tmp_path: Path,
) -> None:
    async with running_mesh(
        CONFIGS / "main.yaml", tmp_path, "openai", "coder", "anthropic", "local", log_level="DEBUG"
    ) as mesh:
        # A query may hold a key, as Gemini's does; a cookie and a session id are nobody's business.
        query = f"?key={CLIENT_KEY}-in-the-query"
        planted = [("cookie", "id=Quarzklee"), ("x-note", "Quarzklee")]
        await mesh.send(
            chat(PLANTED, user="Quarzklee@example.com"), f"/v1/chat/completions{query}", headers=planted
        )
        await mesh.send(b'{"Quarzklee": ', f"/v1/chat/completions{query}")
        await mesh.send(chat("Quarzklee", model="fast"))
        await mesh.send(b"Quarzklee", f"/v1/files/Quarzklee{query}")
        await mesh.send(b"Quarzklee", headers=[("content-encoding", "br")])
        metrics = [name for name, _ in await mesh.metrics()]
        assert "arch_ext_proc_decisions_total" in metrics
        exposition = repr(await mesh.metrics())
    server, envoy = tmp_path / "server.log", tmp_path / "envoy.log"
    decided, unreadable, alias, other, damaged = access_log(envoy)
    assert decided["policy"] == "code generation"
    assert decided["model"] == "vllm/coder"
    assert decided["arm"] == "baseline"
    assert decided["reason"] == "policy"
    assert (decided["status"], decided["attempts"]) == (200, 1)
    assert decided["cluster"].startswith("arch-failover/vllm/coder/")
    assert (unreadable["reason"], unreadable["model"]) == ("body_unreadable", "openai/gpt-4o-mini")
    assert (alias["reason"], alias["model"]) == ("alias", "local/keyless")
    assert not {"reason", "model", "policy", "arm"} & set(other)
    assert damaged["reason"] == "body_unreadable"
    assert any("DEBUG" in line for line in lines_of(server))
    secrets = ("Quarzklee", CLIENT_KEY, *PROVIDER_KEYS.values())
    for text in (*lines_of(server), *lines_of(envoy), exposition):
        assert not any(secret in text for secret in secrets), text


async def test_envoys_own_configuration_holds_no_key(mesh: Mesh) -> None:
    async with mesh.http.get(f"{mesh.stack.envoy_admin_url}/config_dump") as answer:
        dump = await answer.text()
    assert "x-arch-cluster" in dump
    assert not any(key in dump for key in PROVIDER_KEYS.values())


async def test_every_decision_is_counted_by_policy_model_arm_and_reason(mesh: Mesh) -> None:
    async def count(policy: str, model: str, arm: str, reason: str) -> float:
        return await mesh.decisions(policy=policy, model=model, arm=arm, reason=reason)

    wanted = [
        ("code generation", "vllm/coder", "baseline", "policy"),
        ("travel planning", "anthropic/claude", "baseline", "policy"),
        ("", "local/keyless", "", "alias"),
        ("", "openai/gpt-4o", "", "pinned"),
    ]
    before = [await count(*labels) for labels in wanted]
    await mesh.ask(CODING)
    await mesh.ask(TRAVELLING)
    await mesh.ask(CODING, model="fast")
    await mesh.ask(CODING, model="openai/gpt-4o")
    assert [await count(*labels) for labels in wanted] == [number + 1 for number in before]
    assert await mesh.counted("arch_ext_proc_decision_seconds_count") >= 4
    assert await mesh.counted("arch_ext_proc_router_seconds_count") >= 2
    assert await mesh.counted("arch_ext_proc_stream_errors_total") == 0


async def test_health_says_serving(mesh: Mesh) -> None:
    port = mesh.stack.environ["ARCH_PORT"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", wire.SERVICE):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    for path in ("/healthz", "/readyz"):
        async with mesh.http.get(mesh.stack.admin_url + path) as reply:
            assert reply.status == 200


async def test_a_container_can_ask_by_command_whether_the_server_is_ready(mesh: Mesh) -> None:
    environ = {**PROVIDER_KEYS, **mesh.stack.environ}
    command = ("arch-ext-proc", "health", str(CONFIGS / "main.yaml"))
    assert (await run(*command, environ=environ))[0] == 0
    nobody = {**environ, "ARCH_ADMIN_PORT": str(free_port())}
    assert (await run(*command, environ=nobody))[0] == 1
