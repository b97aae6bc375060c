"""`make bench`: Envoy alone against Envoy with this server, alternated, on the same upstream.

Every figure is a median over rounds; a round measures all contenders one after another, so that a
machine whose speed drifts slows them alike. Requests per second of server CPU is the figure that
depends least on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.load import Result, post, run
from bench.mesh import Mesh, process_usage, running_mesh

TEXT_CHARS = 600
"""A body of about 700 bytes."""

TEXT = "please explain how this function sorts the list of numbers and why it is slow for long inputs "
TOKENS = 64
CONVERSATIONS = 4000
"""More than one round can ask."""


@dataclass(frozen=True)
class Contender:
    """One way to send requests: which Envoy, what body."""

    name: str
    is_routed: bool
    reason: str
    requests: list[bytes]


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds. `cpu_share` is the server's, of one core; `per_cpu_second` counts requests."""

    name: str
    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float
    p50_spread_ms: tuple[float, float]
    cpu_share: float | None
    per_cpu_second: float | None
    rss_mb: float | None
    errors: int


def contenders(number: int) -> list[Contender]:
    """Envoy alone, a pinned model, and decisions by the embedded router.

    The conversations of a round come in no other, so that no cache answers for the encoder.
    """
    path = "/v1/chat/completions"

    def body(model: str, text: str) -> bytes:
        return json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()

    pinned = post(path, body("bench/other", "x" * TEXT_CHARS))
    asked = [
        post(path, body("gpt-4o", f"{number}-{index} " + " ".join((TEXT * 4).split()[: TOKENS - 5])))
        for index in range(CONVERSATIONS)
    ]
    return [
        Contender("Envoy alone", False, "server_unavailable", [pinned]),
        Contender("pinned model", True, "pinned", [pinned]),
        Contender(f"embedded router, {TOKENS} tokens", True, "policy", asked),
    ]


async def measure(mesh: Mesh, rounds: int, seconds: float, connections: int) -> list[Figures]:
    """Alternate all contenders for so many rounds."""
    runs: dict[str, list[tuple[Result, float, float]]] = {}
    for number in range(rounds + 1):
        for contender in contenders(number):
            port = mesh.routed_port if contender.is_routed else mesh.plain_port
            cpu_before, _ = process_usage(mesh.server.pid)
            expected = f"x-arch-reason: {contender.reason}\r\n".encode()
            length_s = seconds if number else 1.0
            result = await run(port, contender.requests, expected, connections, length_s)
            cpu_after, rss_mb = process_usage(mesh.server.pid)
            print(
                f"  round {number or 'to warm up'}, {contender.name}: {result.per_second:.0f} req/s",
                flush=True,
            )
            if number:
                runs.setdefault(contender.name, []).append((result, cpu_after - cpu_before, rss_mb))
    return [_figures(contender, connections, runs[contender.name]) for contender in contenders(0)]


def _figures(contender: Contender, connections: int, runs: list[tuple[Result, float, float]]) -> Figures:
    results = [result for result, _, _ in runs]
    p50s = [result.quantile_ms(0.5) for result in results]
    per_cpu = [len(result.latencies_s) / cpu for result, cpu, _ in runs if cpu]
    return Figures(
        name=contender.name,
        connections=connections,
        per_second=statistics.median(result.per_second for result in results),
        p50_ms=statistics.median(p50s),
        p99_ms=statistics.median(result.quantile_ms(0.99) for result in results),
        p50_spread_ms=(min(p50s), max(p50s)),
        cpu_share=statistics.median(cpu / result.seconds for result, cpu, _ in runs)
        if contender.is_routed
        else None,
        per_cpu_second=statistics.median(per_cpu) if contender.is_routed else None,
        rss_mb=max(rss for _, _, rss in runs) if contender.is_routed else None,
        errors=sum(result.errors for result in results),
    )


def table(figures: list[Figures]) -> str:
    """Rows for people."""
    head = f"{'':34}{'conns':>6}{'req/s':>9}{'p50 ms':>9}{'(min–max)':>14}{'p99 ms':>9}{'+p50 ms':>9}"
    rows = [head + f"{'CPU %':>7}{'req/cpu-s':>11}{'RSS MB':>8}{'errors':>8}"]
    base = {row.connections: row.p50_ms for row in figures if row.per_cpu_second is None}
    for row in figures:
        low, high = row.p50_spread_ms
        added = "" if row.per_cpu_second is None else f"{row.p50_ms - base[row.connections]:.2f}"
        cpu = "" if row.per_cpu_second is None else f"{row.per_cpu_second:.0f}"
        share = "" if row.cpu_share is None else f"{100 * row.cpu_share:.0f}"
        rss = "" if row.rss_mb is None else f"{row.rss_mb:.0f}"
        rows.append(
            f"{row.name:34}{row.connections:>6}{row.per_second:>9.0f}{row.p50_ms:>9.2f}"
            f"{f'{low:.2f}–{high:.2f}':>14}{row.p99_ms:>9.2f}{added:>9}{share:>7}{cpu:>11}{rss:>8}{row.errors:>8}"
        )
    return "\n".join(rows)


async def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with running_mesh(Path(folder)) as mesh:
            figures: list[Figures] = []
            for connections in arguments.connections:
                print(f"{arguments.rounds} rounds with {connections} connection(s) …", flush=True)
                figures += await measure(mesh, arguments.rounds, arguments.seconds, connections)
    print(f"\n{platform.machine()}, {platform.system()}, Python {platform.python_version()}\n")
    print(table(figures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each contender in each round")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(parser.parse_args()))
