"""The server is killed under traffic and started again, while the clients only see answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from openai import AsyncOpenAI

from demo.ask import Answer, Question, ask
from demo.show import Show, new_table
from demo.stack import Stack

CLIENTS = 40
MODEL_DELAY_S = 0.4
"""A stand-in that thinks as long as this keeps all clients busy without more requests than the router
of one slow core can take."""

BEFORE_S, DOWN_S, AFTER_S = 1.5, 1.5, 1.5
UNAVAILABLE = "server_unavailable"
PROMPTS = (
    "write a function that reverses a string",
    "is this clause of my contract valid?",
    "plan a weekend trip to Rome",
    "write a limerick about a cat",
)


@dataclass
class Traffic:
    """Clients that ask one thing after the other until told to stop."""

    client: AsyncOpenAI
    phase: str = "before"
    is_over: bool = False
    answers: list[tuple[str, Answer]] = field(default_factory=list)

    async def run(self) -> None:
        await asyncio.gather(*map(self._one_client, range(CLIENTS)))

    async def _one_client(self, number: int) -> None:
        # Not all at the same instant: forty people do not press a key together either.
        await asyncio.sleep(MODEL_DELAY_S * number / CLIENTS)
        turn = 0
        while not self.is_over:
            prompt = PROMPTS[(number + turn) % len(PROMPTS)]
            question = Question(
                ({"role": "user", "content": prompt},), stream=turn % 2 == 0, session=f"user-{number}"
            )
            phase = self.phase
            answer = await ask(self.client, question, f"demo-outage-{number}-{turn}")
            self.answers.append((phase, answer))
            turn += 1


async def play(show: Show, stack: Stack, client: AsyncOpenAI) -> None:
    """Kill, wait, start again; count what every client got."""
    for stand_in in stack.stand_ins.values():
        stand_in.behave.delay_s = MODEL_DELAY_S
    traffic = Traffic(client)
    show.progress(f"{CLIENTS} clients ask without a pause; each answer takes its model {MODEL_DELAY_S:g} s …")
    running = asyncio.create_task(traffic.run())  # noqa: TID251 - awaited below, whatever happens
    try:
        await asyncio.sleep(BEFORE_S)
        show.progress(f"kill -9 {stack.server.pid} (the ext_proc server)")
        await stack.server.kill()
        traffic.phase = "down"
        await asyncio.sleep(DOWN_S)
        show.progress("starting the server again …")
        await stack.restart_server()
        traffic.phase = "after"
        show.progress(f"the server is ready; {AFTER_S:g} s more …")
        await asyncio.sleep(AFTER_S)
    finally:
        traffic.is_over = True
        await running
        for stand_in in stack.stand_ins.values():
            stand_in.behave.delay_s = 0.0
    _print(show, stack, traffic.answers)


def _print(show: Show, stack: Stack, answers: list[tuple[str, Answer]]) -> None:
    table = new_table()
    titles = {"before": "before the kill", "down": "server down", "after": "server back"}
    for name in ("sent while", "requests", "failed", "routed by policy", "answered by default", "slowest ms"):
        table.add_column(name, no_wrap=True, justify="left" if name == "sent while" else "right")
    rows = {phase: [answer for sent, answer in answers if sent == phase] for phase in titles}
    for phase, title in titles.items():
        table.add_row(title, *_counted(rows[phase]))
    everything = [answer for _, answer in answers]
    table.add_row("in all", *_counted(everything), style="bold")
    show.table(table)
    default = stack.configuration.snapshot.default
    reasons = Counter(answer.reason for answer in everything if not answer.error)
    show.line("why: " + ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()))
    for error, count in Counter(answer.error for answer in everything if answer.error).items():
        show.problem(f"{count} × {error}")
    show.expect(all(not answer.error for answer in everything), f"{len(everything)} requests sent, 0 failed")
    show.expect(
        reasons[UNAVAILABLE] > 0,
        f"while the server was down, {default.name} answered: {reasons[UNAVAILABLE]}",
    )
    show.expect(any(answer.reason == "policy" for answer in rows["after"]), "back up, policies route again")


def _counted(answers: list[Answer]) -> tuple[str, ...]:
    by_policy = sum(answer.reason == "policy" for answer in answers)
    failed = sum(bool(answer.error) for answer in answers)
    slowest = max((answer.total_ms for answer in answers), default=0.0)
    others = len(answers) - failed - by_policy
    return (str(len(answers)), str(failed), str(by_policy), str(others), f"{slowest:.0f}")
