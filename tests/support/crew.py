"""Several workers behind Envoy, as a test sees them."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from tests.support.mesh import LIMIT_S, Mesh


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has at this moment."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first: int = probe.getsockname()[1]
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return first


async def workers_of(mesh: Mesh) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await shown(mesh, "/workers"))["workers"]
    return found


async def shown(mesh: Mesh, path: str) -> Any:
    """What the admin port says."""
    async with mesh.http.get(mesh.stack.admin_url + path) as answer:
        return await answer.json()


async def asked_of_each(mesh: Mesh) -> dict[str, int]:
    """How many streams Envoy has opened on each worker that it takes for healthy."""
    async with mesh.http.get(f"{mesh.stack.envoy_admin_url}/clusters") as answer:
        lines = (await answer.text()).splitlines()
    fields = [line.split("::") for line in lines if line.startswith("arch_ext_proc::")]
    values = {(host, name): value for _, host, name, value in (found for found in fields if len(found) == 4)}
    hosts = {host for host, name in values if name == "health_flags"}
    return {
        host: int(values[host, "rq_total"]) for host in hosts if values[host, "health_flags"] == "healthy"
    }


async def all_serve(mesh: Mesh) -> None:
    """Wait until there are two workers and Envoy knows of both."""
    async with asyncio.timeout(LIMIT_S):
        while (
            any(worker["state"] != "serving" for worker in await workers_of(mesh))
            or len(await asked_of_each(mesh)) < 2
        ):
            await asyncio.sleep(0.1)
