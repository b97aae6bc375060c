"""Real conversations through Envoy, one row each: what was asked, where it went, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI
from rich.table import Table
from rich.text import Text

from demo.ask import USUAL_MODEL, Answer, Question, ask
from demo.decisions import DecisionLog
from demo.show import Show, new_table
from demo.stack import Stack

HTTP_OK = 200
TWO_MB = 2_000_000
CERTAIN = ("pinned", "alias", "embeddings")
"""The reasons that no router has a say in."""

_CODE_LINE = "    except KeyError: return None\n"
_CLUSTER_WIDTH, _MODEL_WIDTH = 22, 20
_FOLLOWED = " +"


@dataclass(frozen=True)
class Turn:
    """One request of a scene, and the policy or reason that a person would give it.

    `text` is what is sent where `says` is short for it.
    """

    says: str
    expect: str
    text: str = ""
    model: str = USUAL_MODEL
    api: str = "chat"
    stream: bool = False
    session: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


SCENES: tuple[tuple[Turn, ...], ...] = (
    (
        Turn("write a Python function that parses dates", "code generation"),
        Turn("now the same in Rust", "code generation", stream=True),
        Turn("why does it fail? debug it", "code understanding"),
    ),
    (Turn("write a csv parser in Go", "code generation", session="user-18"),),
    (Turn("find a bug in this code", "code understanding", session="user-15", stream=True),),
    (
        Turn("a flight to Lisbon in May", "travel planning", stream=True),
        Turn("and a hotel near the beach", "travel planning"),
    ),
    (Turn("is a verbal deal binding?", "legal"),),
    (Turn("my order never arrived", "customer support", api="responses"),),
    (Turn("a poem about the sea", "creative writing", stream=True),),
    (Turn("how long to boil an egg?", "no_policy_matched"),),
    (Turn("hello", "pinned", model="mistral/mistral-large-latest"),),
    (Turn("hello", "alias", model="fast", stream=True),),
    (Turn("(an embedding)", "embeddings", model="text-embedding-3-small", api="embeddings"),),
    (
        Turn(
            "a poem, to my cluster!",
            "creative writing",
            text="write a poem about the rain",
            headers={"x-arch-cluster": "vllm-coder"},
        ),
    ),
    (
        Turn(
            "explain this code … (2 MB)",
            "code understanding",
            text=f"explain what this function does:\n{_CODE_LINE * (TWO_MB // len(_CODE_LINE))}",
        ),
    ),
)
"""user-18 is one of the ten percent that the canary gets, user-15 one of the twenty that are copied to the
shadow, given the salt of `arch_config.yaml`. With another salt these rows differ, and that is fine."""


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

    @property
    def is_as_expected(self) -> bool:
        return self.policy_or_reason == self.turn.expect


async def play(show: Show, stack: Stack, client: AsyncOpenAI, log: DecisionLog) -> None:
    """Send every scene, print the table, check what was promised."""
    total = sum(map(len, SCENES))
    with show.step(f"sending {total} requests in {len(SCENES)} conversations through {stack.url}"):
        rows = [
            row for number, scene in enumerate(SCENES) for row in await _scene(client, log, scene, number)
        ]
    targets = stack.configuration.snapshot.targets
    clusters = {name: target.cluster for name, target in targets.items()}
    show.table(_table(rows, {} if show.is_narrow else clusters, None if show.is_wide else _CLUSTER_WIDTH))
    show.line(
        "↳ a follow-up, sent with the turns before it   ~ streamed   (…) not by a policy: the reason why"
    )
    show.line("“to my cluster!” came with a header x-arch-cluster: vllm-coder of the client's own: no effect")
    if show.is_narrow:
        show.line("clusters: " + ", ".join(f"{name} at {cluster}" for name, cluster in clusters.items()))
    else:
        show.line("+ its policy names another model: Envoy sends it the same request if this one fails")
    for row in rows:
        for fault in _faults(row, stack):
            show.problem(f"{row.turn.says}: {fault}")
    show.expect(
        all(row.answer.status == HTTP_OK for row in rows),
        f"{total} of {total} answered, and by the model that was decided for each",
    )
    # What a model judges is no promise: it may differ between weights and even between processors.
    for row in rows:
        if not row.is_as_expected:
            show.line(f"  ≠ {row.turn.says}: {row.policy_or_reason}, a person would say {row.turn.expect}")
    show.line(f"  {sum(row.is_as_expected for row in rows)} of {total} decided as a person would")


async def _scene(client: AsyncOpenAI, log: DecisionLog, scene: tuple[Turn, ...], number: int) -> list[Row]:
    rows: list[Row] = []
    history: list[dict[str, str]] = []
    for place, turn in enumerate(scene):
        history.append({"role": "user", "content": turn.text or turn.says})
        question = Question(
            tuple(history), turn.model, turn.api, turn.stream, session=turn.session, headers=turn.headers
        )
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
    if row.turn.expect in CERTAIN and not row.is_as_expected:
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


def _table(rows: list[Row], clusters: Mapping[str, str], cluster_width: int | None) -> Table:
    """`clusters` has the cluster of each target; without any the table is narrow."""
    narrow = not clusters
    table = new_table()
    table.expand = True
    table.add_column("prompt", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("policy (or reason)" if not narrow else "policy", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("model", no_wrap=True, overflow="ellipsis", max_width=_MODEL_WIDTH)
    if not narrow:
        table.add_column("cluster", no_wrap=True)
    table.add_column("arm", no_wrap=True)
    table.add_column("shadow", no_wrap=True)
    for name in ("decision", "total"):
        table.add_column(f"{name}\nms", justify="right", no_wrap=True)
    table.add_column("HTTP", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, clusters, cluster_width))
    return table


def _cells(row: Row, clusters: Mapping[str, str], cluster_width: int | None) -> list[Text]:
    narrow = not clusters
    answer, decision = row.answer, row.decision
    marks = f"{'↳ ' if row.is_follow_up else ''}{'~ ' if row.turn.stream else ''}"
    policy, shadow = decision.get("policy"), decision.get("shadow")
    cells = [
        Text(f"{marks}{row.turn.says}"),
        Text(policy) if policy else Text(f"({decision.get('reason', 'no server')})", style="dim"),
        Text(_number(decision.get("score"), 2)),
        Text(answer.model or "–"),
        Text(_cluster(decision, clusters, cluster_width)),
        Text(decision.get("arm") or "–"),
        Text("–" if not shadow else "yes" if narrow else shadow.rpartition("/")[2]),
        Text(_number(decision.get("total_ms"), 1)),
        Text(_number(answer.total_ms, 1)),
        Text(str(answer.status or "none"), style="green" if answer.status == HTTP_OK else "bold red"),
    ]
    if narrow:
        del cells[4]
    return cells


def _cluster(decision: Mapping[str, Any], clusters: Mapping[str, str], width: int | None) -> str:
    """The cluster of the target; a chain, which is a cluster of its own, is that of its first target."""
    decided, own = decision.get("cluster") or "–", clusters.get(decision.get("model", ""), "–")
    mark = _FOLLOWED if decided.startswith("arch-failover/") else ""
    shown = own if mark else decided
    return (shown if width is None else _shortened(shown, width - len(mark))) + mark


def _shortened(text: str, width: int) -> str:
    """A name of a mesh begins with a direction and ends with a host: the middle says least."""
    if len(text) <= width:
        return text
    head = width // 3
    return f"{text[:head]}…{text[head + 1 - width :]}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
