"""`arch-ext-proc lint-policies`: what the router itself finds unclear in a configuration's policies."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from ext_proc.cli.evaluate import Bar, CannotEvaluate
from ext_proc.cli.loading import load_to_read
from ext_proc.config.document import START
from ext_proc.config.load import Loaded
from ext_proc.core.errors import Problem, RouterError
from ext_proc.core.settings import Configuration
from ext_proc.evaluation.lint import Finding, Lint, lint
from ext_proc.router.build import build_router

EXIT_OK = 0
EXIT_FOUND = 1
_EPILOG = "exit status: 0; 1 when there is a warning; 2 when the configuration or its router cannot be used."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="FILE", type=Path, help="arch_config.yaml")
    parser.add_argument(
        "--pairs", metavar="N", type=int, default=5, help="nearest pairs to show (default: 5)"
    )
    parser.set_defaults(command=run, name="lint-policies")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: see `_EPILOG`."""
    loaded = load_to_read(arguments.file)
    found = asyncio.run(_lint(loaded.configuration))
    problems = sorted(_problem(finding, arguments.file, loaded) for finding in found.findings)
    for problem in problems:
        print(problem)
    if found.pairs and arguments.pairs > 0:
        print("nearest pairs, by how far they overlap (1: nothing tells them apart)")
        for pair in found.pairs[: arguments.pairs]:
            print(f"  {pair.value:.2f}  {pair.first} | {pair.second}")
    if not problems:
        print(f"{arguments.file}: ok")
    return EXIT_FOUND if problems else EXIT_OK


async def _lint(configuration: Configuration) -> Lint:
    policies = configuration.snapshot.policies
    if not policies:
        return Lint((), ())
    try:
        router = build_router(configuration.router)
        try:
            return await lint(router, policies, Bar("policies"))
        finally:
            await router.close()
    except RouterError as error:
        raise CannotEvaluate(str(error)) from error


def _problem(finding: Finding, file: Path, loaded: Loaded) -> Problem:
    place = (finding.policy, finding.part.value, *(() if finding.index is None else (finding.index,)))
    mark = loaded.places.get(place, START)
    return Problem(str(file), mark.line, mark.column, finding.text, finding.hint, is_warning=True)
