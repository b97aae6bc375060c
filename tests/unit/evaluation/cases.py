"""Case files and trials in a line each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ext_proc.core.types import Message, Policy, Scores, Verdict
from ext_proc.evaluation.cases import Case, Grain
from ext_proc.evaluation.trials import Trial

POLICIES = (Policy("code", "write code"), Policy("law", "contracts and leases"))
INLINE = [
    {"name": "code", "description": "write code"},
    {"name": "law", "description": "contracts and leases"},
]
USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}


def file_of(folder: Path, *rows: dict[str, Any] | str, name: str = "cases.jsonl") -> Path:
    """A file with a line for each row; a text is a line as it is."""
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return path


def row(text: str, gold: object, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "policies": INLINE, "gold": gold, **fields}


def a_case(
    gold: str | None = "code",
    text: str = "hi",
    policies: tuple[Policy, ...] = POLICIES,
    conversation: str | None = None,
    span: str | None = None,
    grain: Grain | None = None,
) -> Case:
    return Case(f"about {text}", (Message("user", text),), policies, gold, conversation, span, grain)


def a_verdict(said: str | None, sure: float = 1.0, policies: tuple[Policy, ...] = POLICIES) -> Verdict:
    """Says `said`, None for none of them; the rest of the probability goes to the others evenly."""
    rest = (1 - sure) / len(policies)
    scores = tuple((policy.name, sure if policy.name == said else rest) for policy in policies)
    return Verdict(said, scores, sure if said is None else rest)


def a_trial(gold: str | None, said: str | None, sure: float = 1.0, **case: Any) -> Trial:
    return Trial(a_case(gold, **case), a_verdict(said, sure))


class WordRouter:
    """Says the policy that shares most words with the newest message; a policy's examples count too."""

    def __init__(self) -> None:
        self.prepared: list[tuple[Policy, ...]] = []
        self.asked: list[str] = []

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        self.prepared.append(policies)

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        text = messages[-1].text
        self.asked.append(text)
        words = set(text.lower().split())
        points = [1.0, *(_points(words, policy) for policy in policies)]
        none, *rest = (point / sum(points) for point in points)
        return Scores(tuple(rest), none)

    async def close(self) -> None:
        pass


def _points(words: set[str], policy: Policy) -> float:
    texts: Sequence[str] = (policy.name, policy.description, *policy.examples)
    return 2.0 * max(len(words & set(text.lower().split())) for text in texts)
