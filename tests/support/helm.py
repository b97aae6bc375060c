"""Helm's own library, from PyPI, in a process of its own: its Go runtime has threads and signal handlers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RELEASE, NAMESPACE = "llm-router", "llm"


class Refused(Exception):
    """Helm does not render a chart with these values; the text is what it says."""


class Helm:
    def __init__(self, chart: Path, process: ProcessPoolExecutor) -> None:
        self._chart = str(chart)
        self._process = process

    def render(self, values: dict[str, Any]) -> dict[str, str]:
        """The text of each template. Errors: Refused, also for values that the chart's schema has not."""
        files, problem = self._process.submit(_render, self._chart, values).result()
        if problem is not None:
            raise Refused(problem)
        return files

    def lint(self) -> list[str]:
        """What `helm lint` says."""
        return self._process.submit(_lint, self._chart).result()


@contextmanager
def running_helm(chart: Path) -> Iterator[Helm]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        yield Helm(chart, process)


def _render(chart_folder: str, values: dict[str, Any]) -> tuple[dict[str, str], str | None]:
    import helm_python  # noqa: PLC0415 in the child alone

    try:
        with helm_python.Chart.load(chart_folder) as chart:
            chart.validate_schema(values)
            return dict(chart.render(values, name=RELEASE, namespace=NAMESPACE)), None
    except helm_python.HelmError as error:
        return {}, str(error)


def _lint(chart_folder: str) -> list[str]:
    import helm_python  # noqa: PLC0415 in the child alone

    return [str(message) for message in helm_python.lint(chart_folder)["messages"]]
