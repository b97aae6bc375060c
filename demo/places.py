"""What a configuration file leaves open: the variables that say where providers and ports are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from socket import SO_REUSEADDR, SOL_SOCKET, socket

import yaml

from demo.stack import PORTS
from demo.stand_in import StandIn

_VARIABLE = re.compile(r"\$\{(\w+):-(.*?)\}")


@dataclass(frozen=True)
class Place:
    """A variable in a `base_url`, its usual port, and the keys of the providers that are there."""

    variable: str
    port: int
    keys: Mapping[str, str]

    @property
    def name(self) -> str:
        """What the stand-in calls itself: `VLLM_NEXT_UPSTREAM` is `vllm-next`."""
        return self.variable.removesuffix("_UPSTREAM").lower().replace("_", "-")


def places(config_file: Path) -> list[Place]:
    """Every variable that stands for a host, in file order."""
    found: dict[str, Place] = {}
    for provider in yaml.safe_load(config_file.read_text())["model_providers"]:
        base_url = _VARIABLE.search(provider.get("base_url", ""))
        if base_url is None:
            continue
        variable, default = base_url.groups()
        port = re.search(r":(\d+)", default)
        key = _VARIABLE.search(provider.get("access_key", ""))
        keys = {**found[variable].keys} if variable in found else {}
        if key:
            keys[key[1]] = key[2]
        found[variable] = Place(variable, int(port[1]) if port else 0, keys)
    return list(found.values())


def usual_ports(config_file: Path) -> dict[str, int]:
    """The ports that the file has when no variable says otherwise, by variable."""
    defaults = dict(_VARIABLE.findall(config_file.read_text()))
    return {name: int(defaults[name]) for name in PORTS}


def is_free(port: int) -> bool:
    """Whether a server could bind this port on loopback now."""
    with socket() as probe:
        probe.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def start_stand_ins(
    wanted: list[Place], cleanup: AsyncExitStack, *, usual_ports: bool
) -> dict[str, StandIn]:
    """One stand-in per place, by variable: on its usual port if that is asked for and free."""
    started = {}
    for place in wanted:
        port = place.port if usual_ports and is_free(place.port) else 0
        running = StandIn(place.name).running(port)
        started[place.variable] = await cleanup.enter_async_context(running)
    return started
