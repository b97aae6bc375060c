"""docs/performance.md from what was measured: tables, what of the aims was reached, and pictures.

What stands between its markers is written here and nowhere else, so no figure is ever typed by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.bodies import SMALL_BYTES
from bench.contenders import EMBEDDED, PINNED, TWO

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/performance.md"
IMAGES = ROOT / "docs/images"
SOAK = ROOT / "bench/results/soak.json"
SMALL = f"{SMALL_BYTES} bytes"
_PICTURES = (
    "![p50 and p99 at one connection](images/performance-latency.png)",
    "![requests per second](images/performance-throughput.png)",
)
BUSY = 0.1
"""Of a core that others used meanwhile: then the machine was not quiet."""

Row = dict[str, Any]


def write(results: Row) -> None:
    """Put tables and pictures in their places."""
    # The tables need no matplotlib.
    from bench import plots  # noqa: PLC0415

    shown = "\n\n".join((*_PICTURES, tables(results)))
    text = _put(PAGE.read_text(encoding="utf-8"), "bench", shown)
    plots.latency(results["figures"], SMALL, IMAGES / "performance-latency.png")
    plots.throughput(results["figures"], SMALL, IMAGES / "performance-throughput.png")
    if SOAK.exists():
        soak = json.loads(SOAK.read_text(encoding="utf-8"))
        text = _put(text, "soak", f"{_machine(soak['machine'])}\n\n{soak['summary']}")
    PAGE.write_text(text, encoding="utf-8")


def _put(page: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"no {begin} … {end} in the page")
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", page)


def tables(results: Row) -> str:
    """Everything measured, as Markdown."""
    parts = [_machine(results["machine"]), _rounds(results), "### Aims", _aims(results)]
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in results["figures"]:
        groups.setdefault((row["group"], row["connections"]), []).append(row)
    for (group, connections), rows in groups.items():
        plural = "" if connections == 1 else "s"
        parts += [f"### {group}, {connections} connection{plural}", _figures(rows)]
    parts += ["### Without Envoy", _policies(results["policies"]), _wire(results["wire"])]
    parts.append(_instructions(results["instructions"]))
    return "\n\n".join(part for part in parts if part)


def _machine(machine: Row) -> str:
    known = "at", "cpu", "cores", "memory_gb", "system", "load_before"
    versions = ", ".join(f"{name} {value}" for name, value in machine.items() if name not in known)
    return (
        f"{machine['at']}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB,"
        f" {machine['system']}; {versions}."
    )


def _rounds(results: Row) -> str:
    others = max(row["others_cpu"] for row in results["figures"])
    quiet = "quiet" if others <= BUSY else "NOT quiet"
    return (
        f"{results['rounds']} rounds of {results['seconds']} s each. The machine was {quiet}: others used"
        f" up to {others:.2f} of a core. Load generator, Envoy, upstream and server share its"
        f" {results['machine']['cores']} cores."
    )


def _figures(rows: list[Row]) -> str:
    lines = [
        "| | req/s | p50 ms (of the rounds) | p99 ms | added p50 | added p99 | req per server CPU s |"
        " × LiteLLM | server / Envoy / client CPU | RSS MB | wrong |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        low, high = row["p50_spread_ms"]
        cells = [
            row["name"],
            f"{row['per_second']:,.0f}",
            f"{row['p50_ms']:.2f} ({low:.2f}–{high:.2f})",
            f"{row['p99_ms']:.2f}",
            _number(row["added_p50_ms"], "+.2f"),
            _number(row["added_p99_ms"], "+.2f"),
            _number(row["per_cpu_s"], ",.0f"),
            _number(row["of_litellm"], ".0f"),
            f"{row['server_cpu']:.2f} / {row['envoy_cpu']:.2f} / {row['client_cpu']:.2f}",
            f"{row['rss_mb']:.0f}",
            f"{row['errors']} of {row['requests'] + row['errors']:,}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _aims(results: Row) -> str:
    rows = [
        _aim(name, at_most, of(results), limit, unit)
        for name, at_most, limit, unit, of in (
            ("added p50, pinned, 1 connection", True, 0.9, "ms", _field(SMALL, PINNED, 1, "added_p50_ms")),
            ("added p99, pinned, 1 connection", True, 3.0, "ms", _field(SMALL, PINNED, 1, "added_p99_ms")),
            (
                "requests per worker core, pinned, 16 connections",
                False,
                2200,
                "/s",
                _field(SMALL, PINNED, 16, "per_cpu_s"),
            ),
            ("two workers against one, pinned, 16 connections", False, 1.8, "×", _two_by_one),
            (
                "throughput against LiteLLM, pinned, 16 connections",
                False,
                20,
                "×",
                _field(SMALL, PINNED, 16, "of_litellm"),
            ),
            (
                "added p50, embedded router, 64 tokens, 1 connection",
                True,
                5.0,
                "ms",
                _field(SMALL, EMBEDDED.format(64), 1, "added_p50_ms"),
            ),
            (
                "added p50, body of 4 MiB, 1 connection",
                True,
                25.0,
                "ms",
                _field("4,096 KiB", PINNED, 1, "added_p50_ms"),
            ),
            ("memory of a worker, the most of all runs", True, 200, "MB", _most_rss),
            ("a decision among the most policies against the fewest", True, 1.2, "×", _policy_growth),
        )
    ]
    head = "| | aim | measured | |\n|---|---:|---:|---|\n"
    return head + "\n".join(rows)


def _aim(name: str, at_most: bool, measured: float | None, limit: float, unit: str) -> str:
    sign = "≤" if at_most else "≥"
    if measured is None:
        return f"| {name} | {sign} {limit:g} {unit} | not measured | |"
    reached = measured <= limit if at_most else measured >= limit
    shown = f"{measured:,.0f}" if abs(measured) >= 100 else f"{measured:.2f}"
    return f"| {name} | {sign} {limit:g} {unit} | {shown} {unit} | {'reached' if reached else '**missed**'} |"


def _field(group: str, name: str, connections: int, field: str) -> Callable[[Row], float | None]:
    def of(results: Row) -> float | None:
        for row in results["figures"]:
            if (row["group"], row["name"], row["connections"]) == (group, name, connections):
                value: float | None = row[field]
                return value
        return None

    return of


def _two_by_one(results: Row) -> float | None:
    one, two = (_field(SMALL, name, 16, "per_second")(results) for name in (PINNED, TWO + PINNED))
    return two / one if one and two else None


def _most_rss(results: Row) -> float | None:
    found = [
        row["rss_mb"] for row in results["figures"] if row["per_cpu_s"] is not None and TWO not in row["name"]
    ]
    return max(found, default=None)


def _policy_growth(results: Row) -> float | None:
    times = list(results["policies"].values())
    return times[-1] / times[0] if times else None


def _policies(times: Row) -> str:
    cells = "; ".join(f"{count} policies {ms:.2f} ms" for count, ms in times.items())
    return f"A decision of the embedded router (some 25 tokens, in process): {cells}."


def _wire(times: Row) -> str:
    lines = ["| CPU µs | protobuf (upb) | betterproto2 | × |", "|---|---:|---:|---:|"]
    for name, each in times.items():
        one, other = each["upb"], each["betterproto2"]
        lines.append(f"| {name} | {one:.1f} | {other:,.1f} | {other / one:.0f} |")
    return "\n".join(lines)


def _instructions(counts: Row) -> str:
    if not counts:
        return "Instructions per request were not counted: there is no valgrind."
    lines = ["| the server's own code, without gRPC | instructions per request |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {name} | {count:,} |" for name, count in counts.items())])
