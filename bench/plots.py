"""Pictures of what was measured, for docs/performance.md."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

_SOAK = (
    ("requests", "requests per interval"),
    ("rss_mb", "server's memory, MB"),
    ("descriptors", "server's open files"),
    ("p50_ms", "p50, ms"),
    ("p99_ms", "p99, ms"),
)

Row = dict[str, Any]


def soak(csv_file: Path, png: Path) -> None:
    """The series of a soak over time."""
    with csv_file.open() as file:
        rows = list(csv.DictReader(file))
    minutes = [float(row["at_s"]) / 60 for row in rows]
    figure, axes = plt.subplots(len(_SOAK), 1, sharex=True, figsize=(8, 9))
    for axis, (name, title) in zip(axes, _SOAK, strict=True):
        axis.plot(minutes, [float(row[name]) for row in rows], linewidth=1)
        axis.set_ylim(bottom=0)
        axis.set_title(title, fontsize=9, loc="left")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes")
    _save(figure, png)


def latency(figures: Iterable[Row], group: str, png: Path) -> None:
    """p50 and p99 of each contender at one connection, on a logarithmic scale."""
    rows = [row for row in figures if row["group"] == group and row["connections"] == 1]
    figure, axis = plt.subplots(figsize=(8, 0.45 * len(rows) + 1.2))
    places = range(len(rows))
    axis.barh(places, [row["p99_ms"] for row in rows], color="#c6d4e8", label="p99")
    axis.barh(places, [row["p50_ms"] for row in rows], color="#33658a", label="p50", height=0.5)
    axis.set_yticks(places, [row["name"] for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("milliseconds from request to answer, 1 connection")
    axis.legend(fontsize=8)
    axis.grid(axis="x", alpha=0.3)
    _save(figure, png)


def throughput(figures: Iterable[Row], group: str, png: Path) -> None:
    """Requests per second of each contender by the number of connections, on a logarithmic scale."""
    rows = [row for row in figures if row["group"] == group]
    names = list(dict.fromkeys(row["name"] for row in rows))
    counts = sorted({row["connections"] for row in rows})
    figure, axis = plt.subplots(figsize=(8, 0.55 * len(names) + 1.2))
    height = 0.8 / max(1, len(counts))
    for number, count in enumerate(counts):
        by_name = {row["name"]: row["per_second"] for row in rows if row["connections"] == count}
        places = [place + (number - (len(counts) - 1) / 2) * height for place in range(len(names))]
        axis.barh(places, [by_name.get(name, 0) for name in names], height, label=f"{count} connections")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("requests per second")
    axis.legend(fontsize=8)
    axis.grid(axis="x", alpha=0.3)
    _save(figure, png)


def _save(figure: Any, png: Path) -> None:
    figure.tight_layout()
    figure.savefig(png, dpi=100)
    plt.close(figure)
