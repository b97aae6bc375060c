"""`make bench`: what this server adds to Envoy, and what LiteLLM's proxy would, in one run.

All contenders take turns in each round, on the same upstream and with the same bodies, so that a machine
whose speed drifts slows them alike. Every figure is a median over rounds; what is added, and every ratio, is
taken round by round. Requests per second of server CPU depend least on what else the machine does.

    python -m bench.run              # all of it, some nine minutes; writes docs/performance.md anew
    python -m bench.run --quick      # a look, in one minute or two; writes nothing but its JSON
    python -m bench.run --only-docs  # the page from the JSON that is there
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench import instructions, litellm, micro, page
from bench.contenders import LITELLM, Contender, Group, groups
from bench.load import quantile, run
from bench.machine import describe
from bench.mesh import Mesh, Side, machine_cpu_s, running_mesh, usage

RESULTS = Path(__file__).parent / "results"
WARM_UP_S = 0.5
ROUNDS, SECONDS = 5, 1.5
QUICK_ROUNDS, QUICK_SECONDS = 2, 0.5


@dataclass(frozen=True)
class Run:
    """One contender in one round. CPU is of one core: 1.0 is a core's whole time."""

    latencies_s: list[float]
    seconds: float
    errors: int
    server_cpu: float
    envoy_cpu: float
    client_cpu: float
    others_cpu: float
    rss_mb: float

    @property
    def per_second(self) -> float:
        return len(self.latencies_s) / self.seconds

    @property
    def p50_ms(self) -> float:
        return quantile(self.latencies_s, 0.5) * 1000


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds; p99 is of all rounds' requests together, too few in one to have a tail.

    `added_*` and `of_baseline` compare with the group's baseline, `of_litellm` with LiteLLM (requests per
    second); None where there is none. `per_cpu_s` is requests per second of the server's CPU.
    """

    group: str
    name: str
    connections: int
    requests: int
    errors: int
    per_second: float
    p50_ms: float
    p50_spread_ms: tuple[float, float]
    p99_ms: float
    added_p50_ms: float | None
    added_p99_ms: float | None
    of_baseline: float | None
    of_litellm: float | None
    per_cpu_s: float | None
    server_cpu: float
    envoy_cpu: float
    client_cpu: float
    others_cpu: float
    rss_mb: float


async def measure(group: Group, connections: int, rounds: int, seconds: float, mesh: Mesh) -> list[Figures]:
    """Alternate the contenders of one group."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for number in range(rounds + 1):
        for contender in group.contenders:
            requests = contender.requests()
            found = await _one(contender, requests, connections, seconds if number else WARM_UP_S, mesh)
            if number:
                runs[contender.name].append(found)
    made = [_figures(group.name, contender, connections, runs) for contender in group.contenders]
    for figures in made:
        print(
            f"  {figures.name}: {figures.per_second:.0f} req/s, p50 {figures.p50_ms:.2f} ms"
            + (f", {figures.errors} ERRORS" if figures.errors else ""),
            flush=True,
        )
    return made


async def _one(
    contender: Contender, requests: list[bytes], connections: int, seconds: float, mesh: Mesh
) -> Run:
    side = contender.side
    before = _cpu_s(side, mesh)
    result = await run(side.port, requests, contender.expected, connections, seconds)
    server, envoy, client, others = (
        (now - then) / result.seconds for now, then in zip(_cpu_s(side, mesh), before, strict=True)
    )
    measured = side.server or side.envoy
    return Run(
        latencies_s=result.latencies_s,
        seconds=result.seconds,
        errors=result.errors,
        server_cpu=server,
        envoy_cpu=envoy,
        client_cpu=client,
        others_cpu=max(0.0, others - server - envoy - client),
        rss_mb=usage(measured.pid).rss_mb / (usage(measured.pid).processes if side.server else 1),
    )


def _cpu_s(side: Side, mesh: Mesh) -> tuple[float, float, float, float]:
    """Of the server, of Envoy and the upstream, of this process, and of the whole machine."""
    server = usage(side.server.pid).cpu_s if side.server else 0.0
    envoy = usage(side.envoy.pid).cpu_s + usage(mesh.upstream.pid).cpu_s
    return server, envoy, time.process_time(), machine_cpu_s()


def _figures(group: str, contender: Contender, connections: int, runs: dict[str, list[Run]]) -> Figures:
    own = runs[contender.name]
    base = runs.get(contender.baseline or "", [])
    peer = runs.get(LITELLM, []) if contender.name != LITELLM else []
    p50s = [each.p50_ms for each in own]
    p99 = _p99_ms(own)
    per_cpu = [len(each.latencies_s) / (each.server_cpu * each.seconds) for each in own if each.server_cpu]
    return Figures(
        group=group,
        name=contender.name,
        connections=connections,
        requests=sum(len(each.latencies_s) for each in own),
        errors=sum(each.errors for each in own),
        per_second=statistics.median(each.per_second for each in own),
        p50_ms=statistics.median(p50s),
        p50_spread_ms=(min(p50s), max(p50s)),
        p99_ms=p99,
        added_p50_ms=_median(one.p50_ms - other.p50_ms for one, other in zip(own, base, strict=False)),
        added_p99_ms=p99 - _p99_ms(base) if base else None,
        of_baseline=_median(one.per_second / other.per_second for one, other in zip(own, base, strict=False)),
        of_litellm=_median(one.per_second / other.per_second for one, other in zip(own, peer, strict=False)),
        per_cpu_s=_median(per_cpu),
        **{
            name: statistics.median(getattr(each, name) for each in own)
            for name in ("server_cpu", "envoy_cpu", "client_cpu", "others_cpu")
        },
        rss_mb=max(each.rss_mb for each in own),
    )


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def _p99_ms(runs: list[Run]) -> float:
    return quantile([latency for each in runs for latency in each.latencies_s], 0.99) * 1000


async def through_envoy(arguments: argparse.Namespace) -> list[Figures]:
    """All groups, with LiteLLM if it is installed."""
    figures: list[Figures] = []
    async with AsyncExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        mesh = await cleanup.enter_async_context(running_mesh(folder, (1, 2)))
        peer = None
        if litellm.is_installed():
            print("LiteLLM's proxy starts …", flush=True)
            peer = await litellm.started(folder, mesh.upstream_port)
            cleanup.push_async_callback(peer.envoy.stop)
        for group in groups(mesh, peer, is_quick=arguments.quick):
            for connections in group.connections:
                print(f"{group.name}, {connections} connection(s)", flush=True)
                figures += await measure(group, connections, arguments.rounds, arguments.seconds, mesh)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds; the page stays")
    parser.add_argument("--only-docs", action="store_true", help="write the page from bench/results")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each contender in each round")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    arguments.seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    out = RESULTS / ("quick.json" if arguments.quick else "bench.json")
    if not arguments.only_docs:
        out.write_text(json.dumps(_measured(arguments), indent=1) + "\n")
    results = json.loads(out.read_text())
    print(page.tables(results))
    if not arguments.quick:
        page.write(results)


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    RESULTS.mkdir(exist_ok=True)
    started = time.perf_counter()
    machine = describe()
    if litellm.is_installed():
        machine["litellm"] = litellm.version()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(through_envoy(arguments))
    print("decisions among few and many policies, the wire by two libraries, instructions …", flush=True)
    counts = micro.QUICK_POLICIES if arguments.quick else micro.POLICIES
    results = {
        "machine": machine,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "figures": [asdict(each) for each in figures],
        "policies": micro.by_policies(counts),
        "wire": micro.by_library(),
        "instructions": instructions.counted(),
    }
    results["took_s"] = round(time.perf_counter() - started)
    return results


if __name__ == "__main__":
    main()
