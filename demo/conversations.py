"""Real conversations through Envoy, one row each: what was asked, where it went, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI
from rich.text import Text

from demo.ask import UNKNOWN_MODEL, Answer, Question, ask
from demo.decisions import DecisionLog
from demo.show import Show, new_table
from demo.stack import Stack

TWO_MB = 2_000_000
_CODE_LINE = "    total = total + price * quantity  # add this line of the order to the sum\n"
_COPY_WAIT_S = 3.0


@dataclass(frozen=True)
class Turn:
    """One request of a scene and the policy or reason that it ought to get. `text` overrides `says`."""

    says: str
    expect: str
    text: str = ""
    model: str = UNKNOWN_MODEL
    api: str = "chat"
    stream: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


SCENES: tuple[tuple[Turn, ...], ...] = (
    (
        Turn("write a Python function that parses dates", "code generation"),
        Turn("make it shorter", "code generation", stream=True),
        Turn("why does it fail on Feb 29? find the bug", "code understanding"),
    ),
    (Turn("what does this regex do? ^(\\d+)\\s*$", "code understanding", stream=True),),
    (
        Turn("find me a flight to Lisbon in May", "travel planning", stream=True),
        Turn("and a hotel near the beach", "travel planning"),
    ),
    (Turn("is a verbal contract binding?", "legal"),),
    (Turn("where is my order? I want a refund", "customer support", api="responses"),),
    (Turn("write a poem about the sea", "creative writing", stream=True),),
    (Turn("hi there, are you awake?", "no_policy_matched"),),
    (Turn("how long do I boil an egg?", "no_policy_matched"),),
    (Turn("hello", "pinned", model="mistral/mistral-large-latest"),),
    (Turn("write a SQL query", "alias", model="fast", stream=True),),
    (Turn("(an embedding)", "embeddings", model="text-embedding-3-small", api="embeddings"),),
    (Turn("write a bash script", "code generation", headers={"x-arch-cluster": "mistral"}),),
    (
        Turn(
            "review this code: … (2 MB)",
            "code understanding",
            text="please review this code and explain what is wrong with it:\n"
            + _CODE_LINE * (TWO_MB // len(_CODE_LINE)),
        ),
    ),
)

_NOTES = {
    "x-arch-cluster": "the client sent x-arch-cluster: mistral, which has no effect",
}


@dataclass(frozen=True)
class Row:
    """One request: what was asked, what the client got, what the server said of it."""

    turn: Turn
    is_follow_up: bool
    answer: Answer
    decision: Mapping[str, Any]

    @property
    def policy_or_reason(self) -> str:
        return self.decision.get("policy") or str(self.decision.get("reason", "no decision"))


async def play(show: Show, stack: Stack, client: AsyncOpenAI, log: DecisionLog) -> None:
    """Send every scene, print the table, check what was promised."""
    total = sum(map(len, SCENES))
    with show.step(f"sending {total} requests in {len(SCENES)} conversations through {stack.url}"):
        rows = [
            row for number, scene in enumerate(SCENES) for row in await _scene(client, log, scene, number)
        ]
    show.table(_table(rows, narrow=show.is_narrow))
    show.line("~ streamed   ↳ same conversation, with the turns before it   () decided without the router")
    for row in rows:
        for fault in _faults(row, stack):
            show.problem(f"{row.turn.says}: {fault}")
    show.expect(
        all(row.answer.status == 200 for row in rows),
        f"{total} of {total} answered, and by the model that was decided for each",
    )


async def _scene(client: AsyncOpenAI, log: DecisionLog, scene: tuple[Turn, ...], number: int) -> list[Row]:
    rows: list[Row] = []
    history: list[dict[str, str]] = []
    for place, turn in enumerate(scene):
        history.append({"role": "user", "content": turn.text or turn.says})
        question = Question(tuple(history), turn.model, turn.api, turn.stream, headers=turn.headers)
        answer = await ask(client, question, f"demo-{number + 1}-{place + 1}")
        history.append({"role": "assistant", "content": answer.text})
        rows.append(Row(turn, place > 0, answer, await log.find(answer.request_id)))
    return rows


def _faults(row: Row, stack: Stack) -> list[str]:
    """What is not as it should be with one row."""
    answer, decision = row.answer, row.decision
    if answer.error:
        return [answer.error]
    faults = []
    if row.policy_or_reason != row.turn.expect:
        faults.append(f"decided {row.policy_or_reason}, expected {row.turn.expect}")
    target = stack.configuration.snapshot.targets.get(decision.get("model", ""))
    if target is None:
        return [*faults, "the server logged no decision"]
    if row.turn.api != "embeddings" and answer.model != target.model:
        faults.append(f"{answer.model} answered, decided was {target.model}")
    reached = arrived(stack, answer.request_id)
    if target.authority not in reached:
        faults.append(f"it did not reach {target.cluster}")
    if decision["shadow"] is None and len(reached) != 1:
        faults.append(f"it reached {len(reached)} upstreams")
    return faults


def arrived(stack: Stack, request_id: str) -> list[str]:
    """The addresses of the stand-ins that got a request, copies included."""
    return [
        f"127.0.0.1:{stand_in.port}"
        for stand_in in stack.stand_ins.values()
        for seen in stand_in.seen
        if seen.headers.get("x-request-id") == request_id
    ]


def _table(rows: list[Row], *, narrow: bool) -> Any:
    table = new_table()
    table.add_column("prompt", no_wrap=True, overflow="ellipsis", ratio=1, min_width=16)
    table.add_column("policy", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("model", no_wrap=True)
    if not narrow:
        table.add_column("cluster", no_wrap=True)
    table.add_column("arm", no_wrap=True)
    table.add_column("shadow", no_wrap=True)
    for name in ("decide", "total"):
        table.add_column(f"{name}\nms", justify="right", no_wrap=True)
    table.add_column("sta-\ntus" if narrow else "status", justify="right", no_wrap=True)
    table.expand = True
    for row in rows:
        table.add_row(*_cells(row, narrow=narrow))
    return table


def _cells(row: Row, *, narrow: bool) -> list[Text]:
    answer, decision = row.answer, row.decision
    prompt = f"{'↳ ' if row.is_follow_up else ''}{row.turn.says}{' ~' if row.turn.stream else ''}"
    policy = decision.get("policy") or f"({decision.get('reason', '–')})"
    cells = [
        Text(prompt),
        Text(policy, style="" if decision.get("policy") else "dim"),
        Text(_number(decision.get("score"), 2)),
        Text(answer.model or "–"),
        Text(decision.get("cluster") or "–"),
        Text(decision.get("arm") or "–"),
        Text((decision.get("shadow") or "–").rpartition("/")[2]),
        Text(_number(decision.get("total_ms"), 1)),
        Text(_number(answer.total_ms, 1)),
        Text(str(answer.status or "none"), style="green" if answer.status == 200 else "bold red"),
    ]
    if narrow:
        del cells[4]
    return cells


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
