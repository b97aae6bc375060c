"""`arch-ext-proc eval`: what a router makes of labelled or recorded conversations."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ext_proc.cli.bad_input import BadInput
from ext_proc.cli.loading import load_to_read
from ext_proc.config import load
from ext_proc.config.schema import RouterSection
from ext_proc.core.errors import ConfigError, RouterError
from ext_proc.core.settings import Configuration, RouterSettings
from ext_proc.core.types import Confidence, Policy
from ext_proc.evaluation import compare, report, suggest
from ext_proc.evaluation.cases import Case, CaseFile, read_cases
from ext_proc.evaluation.measures import measure
from ext_proc.evaluation.results import save
from ext_proc.evaluation.trials import Trial, put, recorded
from ext_proc.router.build import build_router

EXIT_OK = 0
EXIT_WORSE = 1
EXIT_BAD_INPUT = 2
SUGGESTED = 3
ROUTERS: tuple[str, ...] = get_args(RouterSection.model_fields["type"].annotation)
_NO_PROVIDERS = "model_providers: [{model: none/none, cluster: none, default: true}]"
_BAR_WIDTH = 30
_EPILOG = """\
exit status: 0; 1 when --compare or --replay shows that the second side is worse; 2 when a line or a
file could not be used (what could be used is measured all the same). docs/evaluation.md has more.
"""


class CannotEvaluate(BadInput):
    """Nothing can be measured. The text says why."""


@dataclass(frozen=True, slots=True)
class Side:
    """What decides: a router, and policies that take the place of the cases' own."""

    name: str
    settings: RouterSettings
    policies: tuple[Policy, ...] | None
    needed: Confidence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("cases", metavar="CASES.jsonl", type=Path, nargs="?", help="labelled conversations")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="take policies and router of this configuration"
    )
    parser.add_argument(
        "--router", metavar="ROUTER", help=f"ask this one: {', '.join(ROUTERS)}, or that of a configuration"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--errors", metavar="N", type=int, default=5, help="cases to list (default: 5)")
    parser.add_argument(
        "--save", metavar="FILE", type=Path, help="write the decisions, to compare with later"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="routers, configurations (.yaml) or saved results (.jsonl)",
    )
    mode.add_argument("--replay", metavar="FILE", type=Path, help="recorded decisions: what would change now")
    mode.add_argument(
        "--suggest-examples",
        metavar="K",
        type=int,
        nargs="?",
        const=SUGGESTED,
        help=f"the messages that would help most as examples (default: {SUGGESTED} for each policy)",
    )
    parser.set_defaults(command=run, name="eval")


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0; 1 when B is shown to be worse than A; 2 when a line or a file could not be used."""
    if arguments.compare is not None:
        return _compare(arguments)
    if arguments.suggest_examples is not None:
        return _suggest(arguments)
    if arguments.replay is not None:
        return _replay(arguments)
    side = side_of(arguments.config, arguments.router)
    file = read(arguments.cases, side.policies)
    trials = asyncio.run(decide(side, file.cases))
    if arguments.save is not None:
        save(trials, arguments.save)
    measures = measure(trials)
    if arguments.json:
        found = {"router": side.name, **report.as_json(measures), "problems": list(file.problems)}
        print(json.dumps(found, indent=2))
    else:
        print(f"{arguments.cases}, router: {side.name}\n{report.as_text(measures)}")
        if arguments.errors > 0 and measures.turn_accuracy != 1:
            print(f"\n{report.errors(trials, arguments.errors)}")
    return conclude(file)


def _compare(arguments: argparse.Namespace) -> int:
    sides = [_trials_of(text, arguments) for text in arguments.compare]
    (first, first_file), (second, second_file) = sides
    names: tuple[str, str] = tuple(arguments.compare)
    return _show(compare.compare(names, first, second), arguments, first_file, second_file)


def _trials_of(text: str, arguments: argparse.Namespace) -> tuple[list[Trial], CaseFile]:
    """What one side of a comparison says: saved, or asked now."""
    path = Path(text)
    if path.suffix == ".jsonl":
        file = read(path, None, labelled=False)
        return recorded(file.cases), file
    side = side_of(path, arguments.router) if _is_yaml(text) else side_of(arguments.config, text)
    file = read(arguments.cases, side.policies)
    return asyncio.run(decide(side, file.cases)), file


def _replay(arguments: argparse.Namespace) -> int:
    side = side_of(arguments.config, arguments.router)
    file = read(arguments.replay, side.policies, labelled=False)
    then = recorded(file.cases)
    if not then:
        raise CannotEvaluate(f"{arguments.replay} holds no decision")
    now = asyncio.run(decide(side, [trial.case for trial in then]))
    names = (f"{arguments.replay}, as decided then", side.name)
    return _show(compare.compare(names, then, now), arguments, file)


def _show(comparison: compare.Comparison, arguments: argparse.Namespace, *files: CaseFile) -> int:
    if not comparison.pairs:
        raise CannotEvaluate("the two sides have no case in common")
    if arguments.json:
        problems = [problem for file in files for problem in file.problems]
        print(json.dumps({**compare.as_json(comparison), "problems": problems}, indent=2))
    else:
        print(compare.as_text(comparison, arguments.errors))
    found = comparison.difference
    return conclude(*files) or (EXIT_WORSE if found and found.is_shown and found.value < 0 else EXIT_OK)


def _suggest(arguments: argparse.Namespace) -> int:
    side = side_of(arguments.config, arguments.router)
    file = read(arguments.cases, side.policies, labelled=False)
    if all(case.gold is None for case in file.cases):
        trials = recorded(file.cases) or asyncio.run(decide(side, file.cases))
        most = arguments.suggest_examples * max(len(case.policies) for case in file.cases)
        lines = suggest.unclear_as_yaml(suggest.unclear(trials, most))
    else:
        cases = [case for case in file.cases if case.gold is not None]
        lines = suggest.as_yaml(asyncio.run(_suggestions(side, cases, arguments.suggest_examples)))
    print("\n".join(lines))
    return conclude(file)


async def _suggestions(side: Side, cases: Sequence[Case], most: int) -> suggest.Suggestions:
    try:
        router = build_router(side.settings)
        try:
            return await suggest.suggest(router, cases, most, Bar("policies"))
        finally:
            await router.close()
    except (RouterError, suggest.CannotSuggest) as error:
        raise CannotEvaluate(str(error)) from error


def side_of(config: Path | None, router: str | None) -> Side:
    """What `--config` and `--router` stand for together.

    Errors: ConfigError; CannotEvaluate for a router that is none, or needs settings.
    """
    configuration = _loaded(config) if config is not None else None
    if configuration is not None and not configuration.snapshot.policies:
        raise CannotEvaluate(f"{config} has no policies")
    name, settings = _router(router, configuration)
    if configuration is None:
        return Side(name, settings, None, Confidence())
    snapshot = configuration.snapshot
    return Side(f"{name} of {config}", settings, snapshot.policies, snapshot.confidence)


def _router(router: str | None, configuration: Configuration | None) -> tuple[str, RouterSettings]:
    if router is not None and _is_yaml(router):
        settings = _loaded(Path(router)).router
        return f"{settings.type} of {router}", settings
    if configuration is not None and router in (None, configuration.router.type):
        return configuration.router.type, configuration.router
    router = router or ROUTERS[0]
    if router not in ROUTERS:
        raise CannotEvaluate(f"{router} is no router ({', '.join(ROUTERS)}) and no .yaml file")
    try:
        # The schema's own defaults, by the same way as anybody's file.
        text = f"{_NO_PROVIDERS}\nrouting: {{router: {router}}}"
        return router, load.load_text(text, "", {}, lambda: b"").configuration.router
    except ConfigError as error:
        raise CannotEvaluate(
            f"the router {router} needs settings: name a .yaml file that has them"
        ) from error


def _loaded(path: Path) -> Configuration:
    return load_to_read(path).configuration


def _is_yaml(text: str) -> bool:
    return Path(text).suffix in (".yaml", ".yml")


def read(path: Path | None, policies: tuple[Policy, ...] | None, *, labelled: bool = True) -> CaseFile:
    """Errors: CannotEvaluate when not one case is left."""
    if path is None:
        raise CannotEvaluate("name a file of cases")
    try:
        file = read_cases(path, policies, labelled=labelled)
    except OSError as error:
        raise CannotEvaluate(f"{path}: {error.strerror}") from error
    if not file.cases:
        raise CannotEvaluate("\n".join(_once_each(path, file.problems)) or f"{path} holds no case")
    return file


def _once_each(path: Path, problems: Sequence[str]) -> Iterator[str]:
    """Each kind of problem with the place of its first: what is wrong with every line is one mistake."""
    places: dict[str, list[str]] = {}
    for problem in problems:
        kind = problem.removeprefix(f"{path}:").partition(": ")[2]
        places.setdefault(kind, []).append(problem)
    for first, *more in places.values():
        yield f"{first} (and {len(more)} more like it)" if more else first


async def decide(side: Side, cases: Sequence[Case]) -> list[Trial]:
    """Errors: CannotEvaluate when the router cannot be built or prepared."""
    try:
        router = build_router(side.settings)
        try:
            return await put(router, cases, Bar(side.name), side.needed)
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
