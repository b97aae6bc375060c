"""`make demo`: the main job, seen on one machine. `--keep` (`make run`): the same stack, kept up.

Real Envoy, the real server with the repository's `arch_config.yaml`, the official `openai` client.
Only the models are stand-ins. The exit status is 1 when anything was not as promised.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from demo import ask, conversations, failing, live, outage, raising, rollout, sessions
from demo.decisions import DecisionLog
from demo.places import Place, is_free, places, start_stand_ins, usual_ports
from demo.processes import DidNotStart, command
from demo.show import Show, make_console
from demo.stack import Stack, running_stack

CONFIG_FILE = Path(__file__).parents[1] / "arch_config.yaml"
EXPLAINED = "my parcel never came and the invoice is wrong"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.run", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="only keep the stack up until Ctrl-C")
    keep: bool = parser.parse_args(argv).keep
    show = Show(make_console())
    # Whoever was started in the background has SIGINT ignored, and the others would be with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Or Envoy and the server would stay behind when a terminal is closed.
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        asyncio.run(_keep(show) if keep else _demo(show))
    except KeyboardInterrupt:
        show.line("stopped")
        return 0 if keep else 130
    except (DidNotStart, FileNotFoundError) as error:
        show.problem(str(error))
    return 1 if show.problems else 0


async def _demo(show: Show) -> None:
    show.title("1  Start")
    wanted = places(CONFIG_FILE)
    async with _stack(show, wanted, None) as stack:
        log = DecisionLog(stack.server.log)
        for stand_in in stack.stand_ins.values():
            await ask.warm_up(stand_in.base_url)
        async with ask.client(stack.url) as client:
            show.title("2  What went where, and why")
            await conversations.play(show, stack, client, log)
            show.title("3  A canary gets sessions, a shadow gets copies")
            arms = await sessions.play(show, stack, client, log)
            show.title("4  The canary does well: from 10 % to 30 %")
            await raising.play(show, stack, client, log, arms)
            show.title("5  A policy moves to another model by itself")
            await rollout.play(show, stack, client)
            show.title("6  A model fails: the next one of its policy answers")
            await failing.play(show, stack, client)
            show.title("7  The server dies under traffic")
            await outage.play(show, stack, client)
        show.title("8  Why? Ask without Envoy")
        await _explain(show, stack)
        show.line()
        show.progress("stopping …")
    if show.problems:
        show.line(f"{len(show.problems)} problem(s), see ✗ above")
    else:
        show.line(
            f"All as promised, in {show.elapsed_s:.0f} s. `make run` keeps the stack up for you to try."
        )


async def _keep(show: Show) -> None:
    # Whoever sets OPENAI_UPSTREAM (and its key) gets the real models in the place of that stand-in.
    wanted = [place for place in places(CONFIG_FILE) if place.variable not in os.environ]
    ports = usual_ports(CONFIG_FILE)
    taken = {name: port for name, port in ports.items() if not is_free(port)}
    for name, port in taken.items():
        show.line(f"port {port} ({name}) is taken: another one is used, see below")
    free = {name: port for name, port in ports.items() if name not in taken}
    async with _stack(show, wanted, free) as stack:
        await live.tail(show, stack, DecisionLog(stack.server.log))


@asynccontextmanager
async def _stack(show: Show, wanted: list[Place], ports: dict[str, int] | None) -> AsyncIterator[Stack]:
    """`ports` None: any ports, and rollouts that are over soon."""
    async with AsyncExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="arch-demo-")))
        show.progress(f"starting {len(wanted)} stand-in models: {', '.join(place.name for place in wanted)}")
        stand_ins = await start_stand_ins(wanted, cleanup, usual_ports=ports is not None)
        # Stand-ins get no key of yours, should one be in this environment.
        keys = {name: value for place in wanted for name, value in place.keys.items()}
        # A copy, because the demo changes it.
        config_file = Path(shutil.copy(CONFIG_FILE, folder))
        if ports is None:
            rollout.quicken(config_file)
        stack = await cleanup.enter_async_context(
            running_stack(
                config_file,
                folder,
                stand_ins,
                environ={**keys, "ARCH_ROLLOUTS": str(folder / "rollouts.sqlite")},
                envoy_environ=keys,
                log_level="DEBUG",
                log_format="json",
                ports=ports,
                announce=lambda name: show.progress(f"starting {name} …"),
            )
        )
        show.progress(f"ready: Envoy at {stack.url}")
        yield stack


async def _explain(show: Show, stack: Stack) -> None:
    arguments = ["explain", CONFIG_FILE.name, "-m", EXPLAINED]
    show.line(f"$ arch-ext-proc {shlex.join(arguments)}")
    process = await asyncio.create_subprocess_exec(
        command("arch-ext-proc"),
        *arguments,
        cwd=CONFIG_FILE.parent,
        env={**os.environ, **stack.environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    show.line(output.decode().rstrip())
    if process.returncode:
        show.problem(f"explain ended with {process.returncode}")


if __name__ == "__main__":
    sys.exit(main())
