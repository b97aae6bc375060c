"""docker-compose.yml fits the files it mounts, the image it builds, and the configuration it runs."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from demo.processes import command, free_port
from ext_proc.config.load import load
from tests.support.mesh import LIMIT_S, chat, running_mesh

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OWN_IMAGE = [service for service in SERVICES.values() if service["image"] == "arch-ext-proc"]
CONFIG = ROOT / "envoy/compose/arch_config.yaml"
ENVIRON = {"OPENAI_API_KEY": "sk-compose", "ARCH_SALT": "any-text-of-some-length"}


def test_its_keys_are_those_of_the_compose_specification() -> None:
    known = {
        *("image", "build", "command", "entrypoint", "environment", "volumes", "ports", "depends_on"),
        *("restart", "read_only", "cap_drop", "security_opt", "stop_grace_period", "healthcheck"),
        *("working_dir", "profiles"),
    }
    for service in SERVICES.values():
        assert set(service) <= known
        assert set(service.get("depends_on", ())) <= set(SERVICES)


@pytest.mark.parametrize("profiles", [[], ["--profile", "redis"]])
def test_docker_compose_accepts_it(profiles: list[str]) -> None:
    """`config` resolves and checks the file, and needs no engine."""
    words = ["docker-compose", "-f", str(ROOT / "docker-compose.yml"), *profiles, "config"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) >= set(SERVICES) - {"redis"}


def test_the_store_of_the_redis_profile_is_that_service() -> None:
    assert SERVICES["redis"]["profiles"] == ["redis"]
    text = (ROOT / "docker-compose.yml").read_text()
    (store,) = re.findall(r"# (redis://\S+) with --profile redis", text)
    environ = {**ENVIRON, "ARCH_ROLLOUTS": store}
    assert load(CONFIG, environ, lambda: b"").configuration.rollouts.store.reveal() == store
    assert store.split("/")[2].split(":")[0] in SERVICES


def test_envoy_has_the_version_that_the_tests_run() -> None:
    said = subprocess.run([command("envoy"), "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"/(\d+\.\d+\.\d+)/", said)
    assert version
    assert SERVICES["envoy"]["image"] == f"envoyproxy/envoy:v{version[1]}"


def test_what_is_mounted_exists_and_cannot_be_written() -> None:
    mounts = [
        mount
        for service in SERVICES.values()
        for mount in service.get("volumes", ())
        if mount.startswith("./")
    ]
    assert mounts
    for source, _, mode in (mount.split(":") for mount in mounts):
        assert (ROOT / source).exists(), source
        assert mode == "ro"


def test_only_loopback_of_the_host_is_published() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports == [f"127.0.0.1:{port}:{port}" for port in (10000, 9090, 3000)]
    assert load(CONFIG, ENVIRON, lambda: b"").configuration.envoy.listener.port == 10000


def test_the_configuration_names_services_and_ports_that_are_there() -> None:
    configuration = load(CONFIG, ENVIRON, lambda: b"").configuration
    for upstream in configuration.upstreams:
        entry = SERVICES[upstream.host]["entrypoint"]
        assert entry[entry.index("--port") + 1] == str(upstream.port)
    endpoint = yaml.safe_load((ROOT / "envoy/compose/envoy.yaml").read_text())["static_resources"]["clusters"]
    (ours,) = [cluster for cluster in endpoint if cluster["name"] == "arch_ext_proc"]
    ((found,),) = [group["lb_endpoints"] for group in ours["load_assignment"]["endpoints"]]
    address = found["endpoint"]["address"]["socket_address"]
    assert (address["address"], address["port_value"]) == ("arch-ext-proc", configuration.server.listen.port)
    assert configuration.server.listen.host == "0.0.0.0"


def test_each_process_gets_the_variables_that_it_reads() -> None:
    named = set(re.findall(r"\$\{?(\w+)", CONFIG.read_text()))
    # The admin port is moved by tests alone.
    assert set(SERVICES["arch-ext-proc"]["environment"]) == named - {"ARCH_ADMIN_PORT"}
    rendered = (ROOT / "envoy/compose/envoy.yaml").read_text()
    assert set(SERVICES["envoy"]["environment"]) == set(re.findall(r"%ENVIRONMENT\((\w+)\)%", rendered))


def test_the_servers_container_can_do_no_more_than_serve() -> None:
    server = SERVICES["arch-ext-proc"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    drain_s = load(CONFIG, ENVIRON, lambda: b"").configuration.server.drain_s
    assert int(server["stop_grace_period"].removesuffix("s")) > drain_s


@pytest.mark.parametrize("name", ["openai", "qwen"])
async def test_a_stand_in_starts_as_written_and_names_itself(name: str) -> None:
    port = free_port()
    program, *arguments = SERVICES[name]["entrypoint"]
    assert program == "python"
    arguments[arguments.index("--port") + 1] = str(port)
    arguments[arguments.index("--host") + 1] = "127.0.0.1"
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT)
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(LIMIT_S):
            while True:
                try:
                    url = f"http://127.0.0.1:{port}/v1/chat/completions"
                    async with session.post(url, json=chat("hello", model="m")) as answer:
                        text = (await answer.json())["choices"][0]["message"]["content"]
                    break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.05)
        assert text == f"m at {name} here"
        process.terminate()
        assert await asyncio.wait_for(process.wait(), LIMIT_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_configuration_routes_as_its_comments_promise(tmp_path: Path) -> None:
    """The same file with hosts and ports of this machine, through the real Envoy."""
    here = tmp_path / "arch_config.yaml"
    text = CONFIG.read_text().replace("http://openai:8000/v1", "${OPENAI_UPSTREAM}")
    text = text.replace("http://qwen:8000/v1", "${QWEN_UPSTREAM}")
    text = text.replace(
        "server: {address: 0.0.0.0, trust_network: true}",
        'server: {port: "${ARCH_PORT}"}\nrouting: {deadline: 20s}',
    )
    text = text.replace(
        "listener: {address: 0.0.0.0}", 'message_timeout: 30s\n  listener: {port: "${ENVOY_PORT}"}'
    )
    here.write_text(text)
    async with running_mesh(here, tmp_path, "openai", "qwen", environ=ENVIRON) as mesh:
        reply = await mesh.ask("write a csv parser in Go")
        assert (reply.status, reply.policy) == (200, "code generation")
        assert mesh.counts() == {"qwen": 1}
        mesh.forget()
        assert (await mesh.ask("hello", model="openai/gpt-4o-mini")).status == 200
        assert mesh.only("openai").headers["authorization"] == "Bearer sk-compose"
