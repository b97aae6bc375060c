"""`make soak`: hours of mixed traffic through the real Envoy, and whether anything grows.

All kinds at once: pinned bodies from 0.5 KB to 4 MB, streamed answers, conversations that the embedded
router knows and some that it does not, a split with a shadow and observed answers, and a reload of the
configuration every so often. Sampled: requests, errors, latency, the server's memory, descriptors and CPU.

What grows is told by Theil and Sen's slope (the median of the slopes between all pairs of samples) over all
but the first fifth of the time, in which caches fill. "Flat": in all that time it comes to less than a
tolerance.

    python -m bench.soak --seconds 7200 --out bench/results/soak
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from pathlib import Path

import uvloop

from bench import bodies
from bench.load import connection, quantile
from bench.machine import describe
from bench.mesh import Side, running_mesh, usage

WARM_UP_SHARE = 0.2
MAX_SAMPLES = 600
"""Of which slopes are taken: 180,000 pairs."""
NEW_CONVERSATIONS = 20_000
ANSWERS_AFTER_S = 0.02
"""Sooner than any model. When a provider answers at once, Envoy resets some streams before they have ended,
and gRPC loses memory with those (ADR 0045). No other traffic does that."""


@dataclass(frozen=True)
class Sample:
    """What one interval saw, and what the server used at its end. `at_s` counts from the start."""

    at_s: float
    requests: int
    errors: int
    p50_ms: float
    p99_ms: float
    rss_mb: float
    descriptors: int
    cpu_s: float
    envoy_rss_mb: float


@dataclass(frozen=True)
class Trend:
    """How a series went after the warm-up. `growth` is the slope times the time, in the series' unit."""

    name: str
    median: float
    growth: float
    tolerance: float

    @property
    def is_flat(self) -> bool:
        return self.growth <= self.tolerance


TOLERANCES = {"rss_mb": 0.02, "descriptors": 0.02, "p50_ms": 0.1, "p99_ms": 0.25, "envoy_rss_mb": 0.05}
"""Growth as a share of the median that counts as flat."""


def traffic() -> list[bytes]:
    """A thousand or so requests of each kind, in an order in which no kind waits for another."""
    return bodies.shuffled([*bodies.mix(1000), *bodies.asked(64, bodies.KEPT) * 3, *bodies.stories() * 2])


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's estimate. Units: of y per one of x; 0 for fewer than two points."""
    every = max(1, len(points) // MAX_SAMPLES)
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points[::every], 2) if x2 > x1]
    return statistics.median(slopes) if slopes else 0.0


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """The trend of each series that has a tolerance."""
    end = samples[-1].at_s
    steady = [sample for sample in samples if sample.at_s >= WARM_UP_SHARE * end]
    made = []
    for name, share in TOLERANCES.items():
        points = [(sample.at_s, float(getattr(sample, name))) for sample in steady]
        median = statistics.median(y for _, y in points)
        made.append(Trend(name, median, slope(points) * (end - steady[0].at_s), share * median))
    return made


class Soak:
    """Drives one side and samples it."""

    def __init__(self, side: Side, arguments: argparse.Namespace, csv_file: Path) -> None:
        self._side = side
        self._arguments = arguments
        self._csv_file = csv_file
        self._latencies: list[float] = []
        self._errors = 0
        self._started = time.perf_counter()
        self.samples: list[Sample] = []

    async def run(self) -> None:
        requests, fresh = traffic(), bodies.asked(64, NEW_CONVERSATIONS)
        connections = self._arguments.connections
        clients = []
        for index in range(connections):
            at = index * len(requests) // connections
            own = fresh if index == 0 else requests[at:] + requests[:at]
            clients.append(connection(self._side.port, own, b"x-arch-reason: p", self._is_over, self._told))
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client)
            group.create_task(self._sample_until_over())
            group.create_task(self._reload_until_over())

    def _is_over(self) -> bool:
        return time.perf_counter() - self._started > self._arguments.seconds

    def _told(self, latency_s: float | None) -> None:
        if latency_s is None:
            self._errors += 1
        else:
            self._latencies.append(latency_s)

    async def _sample_until_over(self) -> None:
        with self._csv_file.open("w", newline="") as file:
            writer = csv.DictWriter(file, Sample.__annotations__)
            writer.writeheader()
            while not self._is_over():
                await asyncio.sleep(self._arguments.every)
                sample = self._sample()
                self.samples.append(sample)
                writer.writerow({key: round(value, 3) for key, value in asdict(sample).items()})
                file.flush()

    def _sample(self) -> Sample:
        assert self._side.server is not None
        latencies, self._latencies = self._latencies, []
        errors, self._errors = self._errors, 0
        server = usage(self._side.server.pid)
        return Sample(
            at_s=time.perf_counter() - self._started,
            requests=len(latencies),
            errors=errors,
            p50_ms=quantile(latencies, 0.5) * 1000,
            p99_ms=quantile(latencies, 0.99) * 1000,
            rss_mb=server.rss_mb,
            descriptors=server.descriptors,
            cpu_s=server.cpu_s,
            envoy_rss_mb=usage(self._side.envoy.pid).rss_mb,
        )

    async def _reload_until_over(self) -> None:
        """Change a policy's text back and forth: the router's caches begin anew each time."""
        file = self._side.config_file
        assert file is not None
        texts = [file.read_text()]
        texts.append(texts[0].replace("contracts and compliance", "contracts and privacy"))
        at, number = self._arguments.reload_every, 0
        while not self._is_over():
            await asyncio.sleep(1)
            if time.perf_counter() - self._started >= at:
                number, at = number + 1, at + self._arguments.reload_every
                await asyncio.to_thread(file.write_text, texts[number % 2])


def summary(samples: Sequence[Sample], found: Sequence[Trend]) -> str:
    """What was seen, for people."""
    requests, errors = sum(sample.requests for sample in samples), sum(sample.errors for sample in samples)
    minutes = samples[-1].at_s / 60
    lines = [
        f"{requests:,} requests in {minutes:.1f} minutes, {errors} wrong answers",
        "",
        "| | median | growth after the first fifth | flat, if at most | |",
        "|---|---:|---:|---:|---|",
    ]
    for trend in found:
        verdict = "flat" if trend.is_flat else "**grows**"
        lines.append(
            f"| {trend.name} | {trend.median:.1f} | {trend.growth:+.2f} | {trend.tolerance:.2f} | {verdict} |"
        )
    lines += ["", f"Load average when it ended: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores."]
    gaps = [later.at_s - sooner.at_s for sooner, later in pairwise(samples)]
    if gaps and max(gaps) > 3 * statistics.median(gaps):
        lines += ["", f"The machine was busy: one sample came {max(gaps):.0f} s after the one before it."]
    return "\n".join(lines)


async def main(arguments: argparse.Namespace) -> bool:
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with running_mesh(Path(folder), answers_after_s=ANSWERS_AFTER_S) as mesh:
            side = mesh.routed[1]
            soak = Soak(side, arguments, out.with_suffix(".csv"))
            await soak.run()
            if side.server is not None and "reload_refused" in side.server.log.read_text():
                raise RuntimeError("a reload was refused: this was no soak of reloads")
    found = trends(soak.samples)
    text = summary(soak.samples, found)
    record = {
        "machine": describe(),
        "seconds": arguments.seconds,
        "connections": arguments.connections,
        "requests": sum(sample.requests for sample in soak.samples),
        "load_at_end": os.getloadavg()[1],
        "errors": sum(sample.errors for sample in soak.samples),
        "trends": [{**asdict(trend), "is_flat": trend.is_flat} for trend in found],
        "summary": text,
    }
    out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    # What reads the series needs no matplotlib.
    from bench import plots  # noqa: PLC0415

    plots.soak(out.with_suffix(".csv"), Path(arguments.picture))
    print(text)
    return not record["errors"] and all(trend.is_flat for trend in found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=7200.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument("--reload-every", type=float, default=60.0, help="seconds between two reloads")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--out", default="bench/results/soak", help="a path without its suffix")
    parser.add_argument("--picture", default="docs/images/performance-soak.png")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        raise SystemExit(0 if runner.run(main(parser.parse_args())) else 1)
