"""Every metric of the server, and what an expression in Prometheus' language says of them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import yaml

from ext_proc.telemetry import Telemetry
from ext_proc.telemetry.reloads import ReloadTelemetry
from ext_proc.telemetry.rollouts import RolloutTelemetry
from ext_proc.telemetry.series import ARM, MODEL, POLICY
from ext_proc.telemetry.workers import WorkerTelemetry

PREFIX = "arch_ext_proc_"
OF_PROMETHEUS = {"le", "instance", "job"}
"""Labels that Prometheus adds."""


def registered() -> dict[str, tuple[str, ...]]:
    """The metrics by the name that is documented, with their labels.

    The client library tells no labels of a metric without series, so these are its attributes.
    """
    telemetry = Telemetry()
    RolloutTelemetry(telemetry.registry)
    ReloadTelemetry(telemetry.registry, held=lambda: 0)
    found: dict[str, tuple[str, ...]] = {f"{PREFIX}split_share": (POLICY, MODEL, ARM)}
    for registry in (telemetry.registry, WorkerTelemetry().registry):
        for collector in registry._collector_to_names:
            for family in collector.collect():
                name = f"{family.name}_total" if family.type == "counter" else family.name
                found.setdefault(name, getattr(collector, "_labelnames", ()))
    return found


def queried(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics in an expression, each with the labels that it is selected by."""
    found = re.findall(rf"({PREFIX}\w+)(?:\{{([^}}]*)\}})?", expression)
    return [
        (re.sub("_(bucket|sum|count)$", "", name), set(re.findall(r"(\w+)\s*[=!]", labels)))
        for name, labels in found
    ]


def unknown(expression: str) -> list[tuple[str, set[str]]]:
    """What an expression asks for and nobody has."""
    known = registered()
    return [
        (name, labels)
        for name, labels in queried(expression)
        if name not in known or not labels <= {*known[name], *OF_PROMETHEUS}
    ]


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Prometheus' own tool. Errors: FileNotFoundError without it: `make test` installs Debian's package."""
    return subprocess.run(
        ["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


def parse(expressions: Iterable[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Let Prometheus parse expressions."""
    rules = [{"record": f"r{number}", "expr": text} for number, text in enumerate(expressions)]
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    return promtool("check", "rules", str(file), cwd=folder)
