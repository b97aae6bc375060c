"""`python -m bench.shadow`: what a shadow whose provider hangs costs the primary, at 100 percent.

Requests to three policies alternate, so that whatever else the machine does slows them alike: one that is
not observed, one that is, and one that is and whose every session is copied to a provider that never answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import aiohttp

from demo.stack import running_stack
from demo.stand_in import Behaviour, StandIn

CONFIG = Path(__file__).parents[1] / "tests/e2e/configs/observe.yaml"
TEXTS = {
    "not observed": "questions of law: contracts, terms and conditions, privacy and compliance",
    "observed": "write a function in code, a script or a query from this description",
    "hanging shadow": "write a story, a poem, song lyrics, a slogan or another imaginative text",
}
KEYS = {"OPENAI_KEY": "k", "NEXT_KEY": "k"}


async def measure(requests: int) -> dict[str, list[float]]:
    """Milliseconds of each request, by policy."""
    upstreams = {"OPENAI_UPSTREAM": StandIn("openai"), "NEXT_UPSTREAM": StandIn("next")}
    upstreams["NEXT_UPSTREAM"].behave = Behaviour(delay_s=3600)
    times: dict[str, list[float]] = {name: [] for name in TEXTS}
    with tempfile.TemporaryDirectory() as folder:
        async with (
            running_stack(CONFIG, Path(folder), upstreams, environ=KEYS, envoy_environ=KEYS) as stack,
            aiohttp.ClientSession() as http,
        ):
            for number in range(-20, requests):
                for name, text in TEXTS.items():
                    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
                    started = perf_counter()
                    async with http.post(f"{stack.url}/v1/chat/completions", json=body) as answer:
                        await answer.read()
                    if number >= 0:
                        times[name].append((perf_counter() - started) * 1000)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.shadow", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000, help="of each kind")
    times = asyncio.run(measure(parser.parse_args().requests))
    for name, taken in times.items():
        cuts = statistics.quantiles(taken, n=100)
        figures = {"p50_ms": cuts[49], "p95_ms": cuts[94], "p99_ms": cuts[98]}
        print(json.dumps({"policy": name, **{key: round(value, 2) for key, value in figures.items()}}))


if __name__ == "__main__":
    main()
