"""Measure the embedded router: `python -m training.evaluate DATASETS_DIR/dev [--sets a,b] [--every N]`.

Prints a table in Markdown: per set the share of user turns routed right, of whole spans where the set
has them, the share where a policy fits, the recall of "none of them", the calibration error, and the
median time of a decision on one thread, tokenising included. With `--card` the table goes into the model
card too, without the times, which are this machine's. With `--examples N`, N messages of each
policy are taken out of the set and given to the policy; with `--withhold` they are taken only.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from ext_proc.core.ports import Router
from ext_proc.core.types import Policy
from ext_proc.evaluation.cases import OTHER, Case, read_cases
from ext_proc.evaluation.measures import Measures, measure
from ext_proc.evaluation.trials import put
from ext_proc.router.embedded import EmbeddedRouter
from ext_proc.router.embedded.tuning import SHIPPED
from training import card

SETS = (
    "gateway",
    "clinc-small",
    "clinc-intent",
    "clinc-domain",
    "sgd-turn",
    "context",
    "llm-small",
    "llm-tasks",
    "smoke",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="folder with the *.jsonl sets")
    parser.add_argument("--sets", default=",".join(SETS), help="names, by commas")
    parser.add_argument("--every", type=int, default=1, help="take each N-th case, to be quick")
    parser.add_argument("--examples", type=int, default=0, help="messages of each policy to take")
    parser.add_argument("--withhold", action="store_true", help="take them, but do not give them")
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    parser.add_argument("--card", action="store_true", help="write the table into the model card")
    options = parser.parse_args(arguments)
    sets = {name: read_set(options.directory, name, options.every) for name in options.sets.split(",")}
    if options.examples:
        sets = {
            name: with_examples(cases, options.examples, options.withhold) for name, cases in sets.items()
        }
    found = report(EmbeddedRouter(options.weights), sets)
    if options.card:
        card.put(options.weights, "evaluation", _table(found))
    return 0


_HEAD = ("set", "turns", "right", "spans", "fits: right", "`other`: recall", "calibration error")


def report(router: Router, sets: Mapping[str, Sequence[Case]]) -> dict[str, Measures]:
    """Print the table, a row as soon as it is known, and the mean of the sets."""
    print(_row(*_HEAD, "p50 ms"), _row(*["---"] * (len(_HEAD) + 1)), sep="\n")
    found = {}
    for name, cases in sets.items():
        measured = found[name] = asyncio.run(_measure(router, cases))
        p50 = "–" if measured.p50_ms is None else f"{measured.p50_ms:.1f}"
        print(_row(name, *_cells(measured), p50), flush=True)
    print(f"\n{_mean(found)}")
    return found


def _table(found: Mapping[str, Measures]) -> str:
    rows = [_row(name, *_cells(measured)) for name, measured in found.items()]
    return "\n".join([_row(*_HEAD), _row(*["---"] * len(_HEAD)), *rows, "", _mean(found)])


def _mean(found: Mapping[str, Measures]) -> str:
    return f"Mean of the sets: {fmean(each.turn_accuracy or 0.0 for each in found.values()) * 100:.1f}."


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def read_set(directory: Path, name: str, every: int = 1) -> list[Case]:
    """Each N-th case of a set. Errors: ValueError when a line is no case."""
    found = read_cases(directory / f"{name}.jsonl")
    if found.problems:
        raise ValueError(found.problems[0])
    return list(found.cases)[::every]


def with_examples(cases: Sequence[Case], count: int, withhold: bool) -> list[Case]:
    """Take messages of each policy out of the cases, and give them to it.

    No more than a third of a policy's cases are taken; what a span or conversation lacks then is not
    made up for.
    """
    of: dict[tuple[int, str | None], list[Case]] = {}
    for case in cases:
        of.setdefault((id(case.policies), case.gold), []).append(case)
    taken = {key: random.Random("examples").sample(of[key], min(count, len(of[key]) // 3)) for key in of}
    gone = {id(case) for (_, gold), found in taken.items() if gold != OTHER for case in found}
    given: dict[int, tuple[Policy, ...]] = {}
    for case in cases:
        key = id(case.policies)
        if key not in given and not withhold:
            given[key] = tuple(
                replace(policy, examples=tuple(_newest(each) for each in taken.get((key, policy.name), ())))
                for policy in case.policies
            )
    kept = [case for case in cases if id(case) not in gone]
    return [replace(case, policies=given.get(id(case.policies), case.policies)) for case in kept]


def _newest(case: Case) -> str:
    return next(message.text for message in reversed(case.messages) if message.role == "user")


async def _measure(router: Router, cases: Sequence[Case]) -> Measures:
    return measure(await put(router, cases))


def _cells(found: Measures) -> list[str]:
    shares = (found.turn_accuracy, found.span_accuracy, found.in_set_accuracy, found.other_recall)
    percents = ["–" if share is None else f"{share * 100:.1f}" for share in shares]
    return [str(found.n), *percents, "–" if found.ece is None else f"{found.ece:.3f}"]


if __name__ == "__main__":
    sys.exit(main())
