"""The processes under measurement: an upstream in C++ (an Envoy that answers by itself), the server,
Envoy with our filter and the same Envoy without it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from demo import processes
from demo.processes import Child, free_port
from ext_proc.config.load import load
from ext_proc.core.settings import Address
from ext_proc.envoy_config import render_bootstrap

ANSWER = (
    '{"id":"bench","object":"chat.completion",'
    '"choices":[{"index":0,"message":{"role":"assistant","content":"ok"}}]}'
)
_CONFIG = """
model_providers:
  - {{model: bench/default, default: true, base_url: "http://127.0.0.1:{upstream}/v1", access_key: key}}
  - {{model: bench/other, base_url: "http://127.0.0.1:{upstream}/v1", access_key: key}}
routing_preferences:
  - {{name: code generation, description: writing new functions or scripts, models: [bench/other]}}
  - {{name: code understanding, description: explaining or debugging code, models: [bench/other]}}
  - {{name: travel planning, description: planning trips and booking hotels, models: [bench/other]}}
  - {{name: legal, description: contracts and compliance, models: [bench/other]}}
  - {{name: creative writing, description: stories and poems, models: [bench/other]}}
routing: {{router: {{type: embedded, max_waiting: 256}}, deadline: 900ms}}
affinity: {{salt: a-salt-for-benchmarks-only}}
server: {{port: {server}}}
admin: {{port: {admin}}}
envoy: {{listener: {{address: 127.0.0.1, port: {envoy}}}, message_timeout: 1s}}
"""


@dataclass
class Mesh:
    """Ports of the two Envoys, and the server's process."""

    plain_port: int
    routed_port: int
    server: Child


def process_usage(pid: int) -> tuple[float, float]:
    """CPU seconds and resident megabytes of a process. Source: proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@asynccontextmanager
async def running_mesh(folder: Path) -> AsyncIterator[Mesh]:
    """Start everything, on ephemeral ports; stop it at the end."""
    names = ("upstream", "server", "admin", "envoy", "plain")
    ports = {name: free_port() for name in names}
    config_file = folder / "arch_config.yaml"
    config_file.write_text(_CONFIG.format(**ports))
    configuration = load(config_file, {}, lambda: b"").configuration
    servers = (Address("127.0.0.1", ports["server"]),)
    async with AsyncExitStack() as cleanup:

        async def envoy(name: str, bootstrap: dict[str, Any]) -> None:
            admin = free_port()
            bootstrap["admin"] = {"address": _address(admin)}
            file = folder / f"{name}.yaml"
            file.write_text(yaml.safe_dump(bootstrap))
            child = processes.envoy(file, f"http://127.0.0.1:{admin}", folder / f"{name}.log")
            cleanup.push_async_callback(child.stop)
            await child.start()

        await envoy("upstream", _upstream(ports["upstream"]))
        admin_url = f"http://127.0.0.1:{ports['admin']}"
        server = processes.server(config_file, admin_url, folder / "server.log", log_level="ERROR")
        cleanup.push_async_callback(server.stop)
        await server.start()
        routed = yaml.safe_load(render_bootstrap(configuration, servers))
        _without_access_log(routed)
        await envoy("routed", routed)
        listener = replace(configuration.envoy.listener, port=ports["plain"])
        plain_configuration = replace(configuration, envoy=replace(configuration.envoy, listener=listener))
        plain = yaml.safe_load(render_bootstrap(plain_configuration, servers))
        _without_access_log(plain)
        manager = _manager(plain)
        manager["http_filters"] = [item for item in manager["http_filters"] if "ext_proc" not in item["name"]]
        await envoy("plain", plain)
        yield Mesh(ports["plain"], ports["envoy"], server)


def _manager(bootstrap: dict[str, Any]) -> dict[str, Any]:
    filters = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    manager: dict[str, Any] = filters[0]["typed_config"]
    return manager


def _without_access_log(bootstrap: dict[str, Any]) -> None:
    _manager(bootstrap).pop("access_log", None)


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _upstream(port: int) -> dict[str, Any]:
    types = "type.googleapis.com/envoy.extensions.filters"
    answer = {"status": 200, "body": {"inline_string": ANSWER}}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "upstream",
        "http_filters": [
            # The whole body is read before the answer, as a model server does.
            {
                "name": "envoy.filters.http.buffer",
                "typed_config": {"@type": f"{types}.http.buffer.v3.Buffer", "max_request_bytes": 64 << 20},
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.http.router.v3.Router"},
            },
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": answer}],
                }
            ]
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"name": "upstream", "address": _address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener]}}
