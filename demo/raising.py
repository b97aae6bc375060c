"""The canary is raised in the file: who moves to it, and that nobody moves away."""

from __future__ import annotations

import asyncio
from collections import Counter

from openai import AsyncOpenAI

from demo.ask import Question, ask
from demo.decisions import DecisionLog
from demo.sessions import SPLIT_PROMPT, arms_of, from_all
from demo.show import Show, new_table
from demo.stack import Stack

WEIGHTS = {"weight: 90}": "weight: 70}", "weight: 10}": "weight: 30}"}
"""What changes in `arch_config.yaml`: the baseline's weight, and the canary's."""

_FOUND_LIMIT_S = 60.0


async def play(show: Show, stack: Stack, client: AsyncOpenAI, log: DecisionLog, before: list[str]) -> None:
    """Change two weights, start the server anew, send the same sessions again. `before`: their arms."""
    text = stack.config_file.read_text()
    for old, new in WEIGHTS.items():
        (line,) = [line.strip() for line in text.splitlines() if old in line]
        show.line(f"  {line}  →  {new.rstrip('}')}")
        text = text.replace(old, new)
    stack.config_file.write_text(text)
    show.progress("ending the server (SIGTERM: it drains) and starting it with the new weights …")
    await stack.server.stop()
    await stack.restart_server()
    await _is_found(client)
    show.progress(f"the same {len(before)} sessions once more …")
    answers = await from_all(show, client, SPLIT_PROMPT, "raised")
    for error in {answer.error for answer in answers if answer.error}:
        show.problem(error)
    after = await arms_of(log, answers)
    moves = Counter(zip(before, after, strict=True))
    table = new_table()
    for name in ("was on", "is on", "sessions"):
        table.add_column(name, no_wrap=True, justify="right" if name == "sessions" else "left")
    for (was, now), count in sorted(moves.items()):
        table.add_row(was, now, str(count))
    show.table(table)
    stayed = moves["canary", "canary"]
    show.expect(
        moves["canary", "baseline"] == 0 and stayed > 0,
        f"all {stayed} sessions of the canary stayed on it: no user saw the models change twice",
        f"{moves['canary', 'baseline']} moved back",
    )
    show.expect(moves["baseline", "canary"] > 0, f"{moves['baseline', 'canary']} more joined them")


async def _is_found(client: AsyncOpenAI) -> None:
    """Wait until Envoy asks the server again."""
    question = Question(({"role": "user", "content": SPLIT_PROMPT},))
    async with asyncio.timeout(_FOUND_LIMIT_S):
        while (await ask(client, question, "demo-is-it-back")).reason != "policy":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
