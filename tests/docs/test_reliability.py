"""Every line of docs/reliability.md's tables names a test that is there, and metrics that are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ext_proc.telemetry.reloads import ReloadTelemetry
from ext_proc.telemetry.workers import WorkerTelemetry
from tests.docs.test_security import names_in
from tests.support.metrics import registered

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and line.endswith("` |") and "::" in line
]
FIGURES = re.findall(r"^\| `(\w+)(?:\[([^\]]+)\])?` \| *[\d,]+ \|", TEXT, re.MULTILINE)


def test_every_line_says_what_tells_of_it_and_names_its_test() -> None:
    assert len(ROWS) >= 35
    for breaks, _, tells, test in ROWS:
        assert breaks
        assert tells
        assert re.fullmatch(r"`tests/[\w/.:]+`", test), breaks


@pytest.mark.parametrize("name", [row[-1].strip("`") for row in ROWS])
def test_every_test_that_is_named_is_there(name: str) -> None:
    file, _, test = name.partition("::")
    assert test in names_in(ROOT / file)


def test_every_metric_that_is_named_is_there() -> None:
    reloads, workers = CollectorRegistry(), WorkerTelemetry()
    ReloadTelemetry(reloads, lambda: 0)
    known = {*registered(), *reloads._names_to_collectors, *workers.registry._names_to_collectors}
    assert set(re.findall(r"`(arch_ext_proc_\w+)`", TEXT)) <= known


def test_every_figure_is_of_a_test_that_is_there() -> None:
    chaos = set[str]().union(*(names_in(file) for file in (ROOT / "tests" / "chaos").glob("test_*.py")))
    assert len(FIGURES) >= 10
    assert {test for test, _ in FIGURES} <= chaos


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()
