"""Measure the embedded router: `python -m training.evaluate DATASETS_DIR/dev [--sets a,b] [--every N]`.

Prints a table in Markdown: per set the share of user turns routed right, the share where a policy
fits, the recall of "none of them", the calibration error, and the median time of a decision on one
thread, tokenising included, the turns of earlier cases known as they are in service.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

from ext_proc.core.types import Scores
from ext_proc.router.ask import verdict_of
from ext_proc.router.cases import Case, read_cases
from ext_proc.router.embedded import EmbeddedRouter
from ext_proc.router.embedded.tuning import SHIPPED
from ext_proc.router.measures import measure

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
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    options = parser.parse_args(arguments)
    print("| set | turns | right | fits: right | `other`: recall | calibration error | p50 ms |")
    print("|---|---|---|---|---|---|---|")
    rights = []
    for name in options.sets.split(","):
        cases = read_set(options.directory, name, options.every)
        scores, times_ms = asyncio.run(decide(cases, options.weights))
        verdicts = [verdict_of(row, case.policies) for row, case in zip(scores, cases, strict=True)]
        found = measure(cases, verdicts)
        rights.append(found.turn_accuracy)
        shares = map(_percent, (found.turn_accuracy, found.fitting_accuracy, found.other_recall))
        cells = [name, str(found.n), *shares, f"{found.ece:.3f}", f"{median(times_ms):.1f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\nMean of the sets: {fmean(rights) * 100:.1f}")
    return 0


def read_set(directory: Path, name: str, every: int) -> list[Case]:
    """Each N-th case of a set, those with the same policies together."""
    cases = list(read_cases(directory / f"{name}.jsonl"))[::every]
    order: dict[int, int] = {}
    return sorted(cases, key=lambda case: order.setdefault(id(case.policies), len(order)))


async def decide(cases: Sequence[Case], weights: Path) -> tuple[list[Scores], list[float]]:
    """The router's answers, and the milliseconds that each took."""
    answers, times_ms = [], []
    router = EmbeddedRouter(weights)
    prepared = None
    for case in cases:
        if case.policies is not prepared:
            prepared = case.policies
            await router.prepare(prepared)
        started = perf_counter()
        answers.append(await router.score(case.messages, case.policies))
        times_ms.append((perf_counter() - started) * 1000)
    await router.close()
    return answers, times_ms


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share * 100:.1f}"


if __name__ == "__main__":
    sys.exit(main())
