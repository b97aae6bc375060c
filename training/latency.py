"""Time decisions on one thread: `python -m training.latency [--policies 10,1000]`.

Each decision is of one user message never seen before, tokenising included, through the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from time import perf_counter

from ext_proc.core.types import Message, Policy
from ext_proc.router.embedded import EmbeddedRouter
from ext_proc.router.embedded.tuning import SHIPPED

_WORDS = ("write", "a", "function", "that", "books", "the", "cheapest", "train", "to", "my", "lawyer")
"""One token each."""
_TOKENS = (16, 64, 128, 4096)
_WARM_UP, _RUNS = 20, 200


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", default="10,1000", help="how many, by commas")
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    options = parser.parse_args(arguments)
    print("| tokens | policies | p50 ms | p90 ms | p99 ms |\n|---|---|---|---|---|")
    for count in map(int, options.policies.split(",")):
        asyncio.run(_time(options.weights, count))
    return 0


async def _time(weights: Path, count: int) -> None:
    router = EmbeddedRouter(weights)
    policies = tuple(Policy(f"task {number}", f"help with task number {number}") for number in range(count))
    await router.prepare(policies)
    for tokens in _TOKENS:
        times_ms = []
        for run in range(_WARM_UP + _RUNS):
            words = [_WORDS[(run + index * (1 + run % 7)) % len(_WORDS)] for index in range(tokens - 3)]
            message = Message("user", f"{run} " + " ".join(words))
            started = perf_counter()
            await router.score((message,), policies)
            times_ms.append((perf_counter() - started) * 1000)
        cuts = quantiles(times_ms[_WARM_UP:], n=100)
        print(f"| {tokens} | {count} | {cuts[49]:.2f} | {cuts[89]:.2f} | {cuts[98]:.2f} |", flush=True)
    await router.close()


if __name__ == "__main__":
    sys.exit(main())
