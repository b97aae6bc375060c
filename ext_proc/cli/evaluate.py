"""`arch-ext-proc eval`: what a router makes of labelled or recorded conversations."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ext_proc.config import load
from ext_proc.config.schema import RouterSection
from ext_proc.core.errors import RouterError
from ext_proc.core.settings import RouterSettings
from ext_proc.core.types import Policy
from ext_proc.evaluation import report
from ext_proc.evaluation.cases import Case, CaseFile, read_cases
from ext_proc.evaluation.measures import measure
from ext_proc.evaluation.trials import Trial, put
from ext_proc.router.build import build_router

EXIT_OK = 0
EXIT_BAD_INPUT = 2
ROUTERS: tuple[str, ...] = get_args(RouterSection.model_fields["type"].annotation)
_NO_PROVIDERS = "model_providers: [{model: none/none, cluster: none, default: true}]"
_BAR_WIDTH = 30


class CannotEvaluate(Exception):
    """Nothing can be measured. The text says why."""


@dataclass(frozen=True, slots=True)
class Side:
    """What decides: a router, and policies that take the place of the cases' own."""

    name: str
    settings: RouterSettings
    policies: tuple[Policy, ...] | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cases", metavar="CASES.jsonl", type=Path, help="labelled conversations")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="take the policies and the router of this"
    )
    parser.add_argument("--router", choices=ROUTERS, help="ask this router instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--errors", metavar="N", type=int, default=5, help="wrong decisions to list (default: 5)"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0; 2 when a line or a file could not be used, whatever else was measured."""
    side = side_of(arguments.config, arguments.router)
    file = read(arguments.cases, side.policies)
    trials = asyncio.run(decide(side, file.cases))
    measures = measure(trials)
    if arguments.json:
        found = {"router": side.name, **report.as_json(measures), "problems": list(file.problems)}
        print(json.dumps(found, indent=2))
    else:
        print(f"{arguments.cases}, router: {side.name}\n{report.as_text(measures)}")
        if arguments.errors > 0 and measures.turn_accuracy != 1:
            print(f"\n{report.errors(trials, arguments.errors)}")
    return conclude(file)


def side_of(config: Path | None, router: str | None) -> Side:
    """Errors: ConfigError."""
    if config is None:
        # The schema's own defaults, by the same way as anybody's file.
        text = f"{_NO_PROVIDERS}\nrouting: {{router: {router or ROUTERS[0]}}}"
        settings = load.load_text(text, "(built in)", {}, lambda: b"").configuration.router
        return Side(settings.type, settings, None)
    configuration = load.load(config, os.environ, lambda: secrets.token_bytes(32)).configuration
    settings = configuration.router if router is None else side_of(None, router).settings
    if not configuration.snapshot.policies:
        raise CannotEvaluate(f"{config} has no policies")
    return Side(f"{settings.type} of {config}", settings, configuration.snapshot.policies)


def read(path: Path, policies: tuple[Policy, ...] | None, *, labelled: bool = True) -> CaseFile:
    """Errors: CannotEvaluate when not one case is left."""
    try:
        file = read_cases(path, policies, labelled=labelled)
    except OSError as error:
        raise CannotEvaluate(f"{path}: {error.strerror}") from error
    if not file.cases:
        raise CannotEvaluate("\n".join(file.problems) or f"{path} holds no case")
    return file


async def decide(side: Side, cases: Sequence[Case]) -> list[Trial]:
    """Errors: CannotEvaluate when the router cannot be built or prepared."""
    try:
        router = build_router(side.settings)
        try:
            return await put(router, cases, Bar(side.name))
        finally:
            await router.close()
    except RouterError as error:
        raise CannotEvaluate(f"{side.name}: {error}") from error


def conclude(*files: CaseFile) -> int:
    """Say which lines were left out, and give the exit status."""
    problems = list(dict.fromkeys(problem for file in files for problem in file.problems))
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"{len(problems)} lines are no cases and were left out", file=sys.stderr)
    return EXIT_BAD_INPUT if problems else EXIT_OK


class Bar:
    """A progress bar on standard error, where that is a terminal."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._is_shown = sys.stderr.isatty()
        self._percent = -1

    def __call__(self, done: int, of: int) -> None:
        percent = done * 100 // of
        if not self._is_shown or percent == self._percent:
            return
        self._percent = percent
        filled = percent * _BAR_WIDTH // 100
        bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
        end = "\r\x1b[K" if done == of else ""
        print(f"\r{self._title} {bar} {done} of {of}", end=end, file=sys.stderr, flush=True)
