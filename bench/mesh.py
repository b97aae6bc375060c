"""The processes under measurement: an upstream in C++ (an Envoy that answers by itself), servers with one
Envoy each, and the same Envoy without them."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bench.load import STREAMED
from demo import processes
from demo.processes import Child, free_port
from ext_proc.config.load import load
from ext_proc.core.settings import Configuration
from ext_proc.envoy_config import render_bootstrap

ANSWER = (
    '{"id":"bench","object":"chat.completion","created":1,"model":"bench",'
    '"choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120}}'
)
_PIECE = (
    'data: {"id":"bench","object":"chat.completion.chunk","created":1,"model":"bench",'
    '"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
)
_LAST = _PIECE.replace("null", '"stop"')
STREAM = _PIECE * 20 + _LAST + "data: [DONE]\n\n"
"""An answer in pieces, all of which come at once: what passing them on costs, not how long a model takes."""

_CONFIG = """
model_providers:
  - {{model: bench/default, default: true, base_url: "http://127.0.0.1:{upstream}/v1", access_key: key}}
  - {{model: bench/other, base_url: "http://127.0.0.1:{upstream}/v1", access_key: key}}
  - {{model: next/model, base_url: "http://127.0.0.1:{upstream}/v1", access_key: key}}
routing_preferences:
  - {{name: code generation, description: writing new functions or scripts, models: [bench/other]}}
  - {{name: code understanding, description: explaining or debugging code, models: [bench/other]}}
  - {{name: travel planning, description: planning trips and booking hotels, models: [bench/other]}}
  - {{name: legal, description: contracts and compliance, models: [bench/other]}}
  - name: creative writing
    description: stories and poems
    targets: [{{model: bench/other, weight: 90}}, {{model: next/model, weight: 10}}]
    shadow: [{{model: next/model, percent: 10}}]
routing: {{router: {{type: embedded, max_waiting: 256}}, deadline: 20s}}
affinity: {{salt: a-salt-for-benchmarks-only}}
server: {{port: {server}, workers: {workers}}}
admin: {{port: {admin}}}
envoy: {{listener: {{address: 127.0.0.1, port: {envoy}}}, message_timeout: 30s}}
"""


@dataclass
class Side:
    """One Envoy and what stands behind it, as far as it is under measurement: a server, or none."""

    port: int
    envoy: Child
    server: Child | None = None
    config_file: Path | None = None


@dataclass
class Mesh:
    """`routed` has a side for each number of workers asked for."""

    plain: Side
    routed: dict[int, Side]
    upstream: Child
    upstream_port: int


@dataclass(frozen=True)
class Usage:
    """Of a process and its children: CPU seconds so far, resident megabytes, open files, and how many."""

    cpu_s: float
    rss_mb: float
    descriptors: int
    processes: int


def usage(pid: int) -> Usage:
    """What a process and its children use. Source: proc(5)."""
    cpu_s = rss_mb = 0.0
    descriptors = 0
    pids = [pid, *_children(pid)]
    for each in pids:
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        cpu_s += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        rss_mb += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        descriptors += len(os.listdir(f"/proc/{each}/fd"))
    return Usage(cpu_s, rss_mb, descriptors, len(pids))


def machine_cpu_s() -> float:
    """CPU seconds that all processes of the machine have used so far."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@asynccontextmanager
async def running_mesh(
    folder: Path, workers: Iterable[int] = (1,), *, answers_after_s: float = 0.0
) -> AsyncIterator[Mesh]:
    """Start everything, on ephemeral ports; stop it at the end. The upstream thinks for `answers_after_s`."""
    async with AsyncExitStack() as cleanup:

        async def envoy(name: str, bootstrap: dict[str, Any]) -> Child:
            admin = free_port()
            bootstrap["admin"] = {"address": _address(admin)}
            file = folder / f"{name}.yaml"
            file.write_text(yaml.safe_dump(bootstrap))
            child = processes.envoy(file, f"http://127.0.0.1:{admin}", folder / f"{name}.log")
            cleanup.push_async_callback(child.stop)
            await child.start()
            return child

        upstream_port = free_port()
        upstream = await envoy("upstream", _upstream(upstream_port, answers_after_s))
        routed = {}
        for count in workers:
            ports = {"admin": free_port(), "envoy": free_port(), "server": _free_ports(count)}
            config_file = folder / f"arch_config-{count}.yaml"
            config_file.write_text(_CONFIG.format(upstream=upstream_port, workers=count, **ports))
            configuration = load(config_file, {}, lambda: b"").configuration
            admin_url = f"http://127.0.0.1:{ports['admin']}"
            server = processes.server(
                config_file, admin_url, folder / f"server-{count}.log", log_level="ERROR"
            )
            cleanup.push_async_callback(server.stop)
            await server.start()
            front = await envoy(f"routed-{count}", _rendered(configuration))
            routed[count] = Side(ports["envoy"], front, server, config_file)
        plain_port = free_port()
        listener = replace(configuration.envoy.listener, port=plain_port)
        plain = _rendered(replace(configuration, envoy=replace(configuration.envoy, listener=listener)))
        manager = _manager(plain)
        manager["http_filters"] = [item for item in manager["http_filters"] if "ext_proc" not in str(item)]
        yield Mesh(Side(plain_port, await envoy("plain", plain)), routed, upstream, upstream_port)


def _rendered(configuration: Configuration) -> dict[str, Any]:
    """What `arch-ext-proc render` writes, without the access log: a line per request is not the question."""
    bootstrap: dict[str, Any] = yaml.safe_load(
        render_bootstrap(configuration, configuration.server.endpoints)
    )
    _manager(bootstrap).pop("access_log", None)
    return bootstrap


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has at this moment."""
    while True:
        first = free_port()
        try:
            for port in range(first + 1, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


def _manager(bootstrap: dict[str, Any]) -> dict[str, Any]:
    filters = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    manager: dict[str, Any] = filters[0]["typed_config"]
    return manager


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _upstream(port: int, answers_after_s: float) -> dict[str, Any]:
    types = "type.googleapis.com/envoy.extensions.filters"
    accept, value = STREAMED.decode().strip().split(": ")
    streamed = {"prefix": "/", "headers": [{"name": accept, "string_match": {"exact": value}}]}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "upstream",
        "http_filters": [
            # The whole body is read before the answer, as a model server does.
            {
                "name": "envoy.filters.http.buffer",
                "typed_config": {"@type": f"{types}.http.buffer.v3.Buffer", "max_request_bytes": 64 << 20},
            },
            *([_delay(answers_after_s)] if answers_after_s else []),
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
                    "routes": [
                        _answering(streamed, STREAM, "text/event-stream"),
                        _answering({"prefix": "/"}, ANSWER, "application/json"),
                    ],
                }
            ]
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"name": "upstream", "address": _address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener]}}


def _delay(seconds: float) -> dict[str, Any]:
    delay = {"fixed_delay": f"{seconds}s", "percentage": {"numerator": 100}}
    fault = {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault", "delay": delay}
    return {"name": "envoy.filters.http.fault", "typed_config": fault}


def _answering(match: dict[str, Any], body: str, content_type: str) -> dict[str, Any]:
    kind = {
        "header": {"key": "content-type", "value": content_type},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    answer = {"status": 200, "body": {"inline_string": body}}
    return {"match": match, "direct_response": answer, "response_headers_to_add": [kind]}
