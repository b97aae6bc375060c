"""The first model of a policy fails: the same request goes to the next one, and no client sees it."""

from __future__ import annotations

from collections import Counter

from openai import AsyncOpenAI

from demo.ask import Question, ask
from demo.sessions import SHADOW_PROMPT
from demo.show import Show, new_table
from demo.stack import Stack
from demo.stand_in import Behaviour

REQUESTS = 20
FIRST, UPSTREAM = "vllm/qwen-coder", "VLLM_UPSTREAM"
NEXT = "openai/gpt-4o"
STATUS = 503


async def play(show: Show, stack: Stack, client: AsyncOpenAI) -> None:
    """Let the first of two ranked models answer nothing but an error, and ask for what it serves."""
    show.line(f"  models: [{FIRST}, {NEXT}]")
    behaviour = stack.stand_ins[UPSTREAM].behave
    stack.stand_ins[UPSTREAM].behave = Behaviour(status=STATUS)
    with show.step(f"{FIRST} answers {STATUS} to everything; {REQUESTS} requests that it should serve"):
        question = Question(({"role": "user", "content": SHADOW_PROMPT},))
        answers = [await ask(client, question, f"demo-failing-{number}") for number in range(REQUESTS)]
    stack.stand_ins[UPSTREAM].behave = behaviour
    table = new_table()
    for name in ("answered by", "models tried", "requests"):
        table.add_column(name, no_wrap=True, justify="left" if name == "answered by" else "right")
    seen = Counter(
        (answer.headers.get("x-arch-model", "–"), answer.headers.get("x-arch-attempts", "–"))
        for answer in answers
    )
    for (model, attempts), count in sorted(seen.items(), reverse=True):
        table.add_row(model, attempts, str(count))
    show.table(table)
    for error in {answer.error for answer in answers if answer.error}:
        show.problem(error)
    show.expect(
        {model for model, _ in seen} == {NEXT}, f"{REQUESTS} requests, 0 failed: each was answered by {NEXT}"
    )
    passed_over = seen[NEXT, "1"]
    if passed_over:
        show.line(f"  after some failures in a row it was not tried any more: {passed_over} requests")
