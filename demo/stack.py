"""The whole mesh: stand-ins, the server, Envoy in front, on ephemeral ports."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from demo import processes
from demo.processes import Child, free_port
from demo.stand_in import StandIn
from ext_proc.config.load import load
from ext_proc.core.settings import Address, Configuration
from ext_proc.envoy_config import render_bootstrap
from ext_proc.envoy_config.clusters import SYSTEM_CA_FILE

PORTS = ("ARCH_PORT", "ARCH_ADMIN_PORT", "ENVOY_PORT", "ENVOY_ADMIN_PORT")
"""The variables that a configuration file reads its ports from."""


@dataclass
class Stack:
    """A mesh that runs. `environ` is what the configuration file and both processes see."""

    config_file: Path
    configuration: Configuration
    stand_ins: Mapping[str, StandIn]
    server: Child
    envoy: Child
    environ: Mapping[str, str]
    url: str
    admin_url: str
    envoy_admin_url: str

    async def restart_server(self) -> None:
        """Start it again after it was killed or stopped."""
        await self.server.start()

    def freeze_server(self) -> None:
        self.server.send(signal.SIGSTOP)

    def thaw_server(self) -> None:
        self.server.send(signal.SIGCONT)


@asynccontextmanager
async def running_stack(  # noqa: PLR0913
    config_file: Path,
    folder: Path,
    stand_ins: Mapping[str, StandIn],
    *,
    environ: Mapping[str, str] | None = None,
    envoy_environ: Mapping[str, str] | None = None,
    log_level: str = "INFO",
    log_format: str = "human",
    concurrency: int = 1,
    ports: Mapping[str, int] | None = None,
    ca_file: str = SYSTEM_CA_FILE,
    announce: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Stack]:
    """Run a configuration file whose ports and base URLs come from environment variables.

    `stand_ins` maps such a variable (`OPENAI_UPSTREAM`) to the stand-in that gets its own address
    there. `ports` fixes some of the four ports; the others are free ones. Envoy trusts `ca_file`.
    `announce` is told what is started. Rendered configuration and logs go to `folder`.
    """
    async with AsyncExitStack() as cleanup:
        for stand_in in stand_ins.values():
            if not stand_in.port:
                await cleanup.enter_async_context(stand_in.running())
        ports = {**{name: free_port() for name in PORTS}, **(ports or {})}
        values = {
            **{variable: stand_in.base_url for variable, stand_in in stand_ins.items()},
            **{name: str(port) for name, port in ports.items()},
            **(environ or {}),
        }
        everything = {**os.environ, **values}
        configuration = load(config_file, everything, lambda: secrets.token_bytes(32)).configuration
        # To see whether Envoy is ready; the file may leave Envoy's admin port out.
        admin = Address("127.0.0.1", ports["ENVOY_ADMIN_PORT"])
        configuration = replace(configuration, envoy=replace(configuration.envoy, admin=admin))
        bootstrap = folder / "envoy.yaml"
        bootstrap.write_text(render_bootstrap(configuration, configuration.server.endpoints, ca_file=ca_file))
        admin_url = f"http://127.0.0.1:{ports['ARCH_ADMIN_PORT']}"
        envoy_admin_url = f"http://127.0.0.1:{ports['ENVOY_ADMIN_PORT']}"
        server = processes.server(
            config_file, admin_url, folder / "server.log", values, log_level=log_level, log_format=log_format
        )
        envoy = processes.envoy(
            bootstrap, envoy_admin_url, folder / "envoy.log", envoy_environ, concurrency=concurrency
        )
        for name, child in (("the server", server), ("Envoy", envoy)):
            announce(name)
            cleanup.push_async_callback(child.stop)
            await child.start()
        yield Stack(
            config_file=config_file,
            configuration=configuration,
            stand_ins=stand_ins,
            server=server,
            envoy=envoy,
            environ=values,
            url=f"http://127.0.0.1:{ports['ENVOY_PORT']}",
            admin_url=admin_url,
            envoy_admin_url=envoy_admin_url,
        )
