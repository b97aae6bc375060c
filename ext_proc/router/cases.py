"""Labelled conversations from files: what a router is measured with.

One JSON object a line: `messages` and `gold`, the policy's name or `other`, for the last user turn; or
`gold` as an object, user turn (from 1) to name, for every turn of the conversation. The policies are
in `policies`, or in `policy_sets/NAME.yaml` beside the file when `policy_set` names them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ext_proc.core.types import Message, Policy

OTHER = "other"
"""The gold label of a conversation that falls under none of the policies."""


@dataclass(frozen=True, slots=True)
class Case:
    """One user turn to be routed. `gold` is None for none of the policies."""

    messages: tuple[Message, ...]
    policies: tuple[Policy, ...]
    gold: str | None


def read_cases(path: Path) -> Iterator[Case]:
    """Read a file of cases. Cases with the same policies share one tuple.

    Errors: OSError, or ValueError with file and line.
    """
    sets: dict[str, tuple[Policy, ...]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                yield from _cases_of(row, _policies_of(row, path, sets))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}:{number}: not a case: {error!r}") from error


def _cases_of(row: dict[str, Any], policies: tuple[Policy, ...]) -> Iterator[Case]:
    messages = tuple(Message(message["role"], message["content"]) for message in row["messages"])
    gold = row["gold"]
    if isinstance(gold, str):
        yield Case(messages, policies, _label(gold, policies))
        return
    user_turn = 0
    for index, message in enumerate(messages):
        user_turn += message.role == "user"
        if message.role == "user" and str(user_turn) in gold:
            yield Case(messages[: index + 1], policies, _label(gold[str(user_turn)], policies))


def _label(gold: str, policies: tuple[Policy, ...]) -> str | None:
    if gold == OTHER:
        return None
    if gold not in {policy.name for policy in policies}:
        raise ValueError(f"gold {gold!r} is none of the policies")
    return gold


def _policies_of(row: dict[str, Any], path: Path, sets: dict[str, tuple[Policy, ...]]) -> tuple[Policy, ...]:
    given, name = row.get("policies"), row.get("policy_set")
    key = json.dumps(given) if given is not None else f"set {name}"
    if key not in sets:
        if given is None:
            text = (path.parent / "policy_sets" / f"{name}.yaml").read_text(encoding="utf-8")
            given = yaml.safe_load(text)["policies"]
        sets[key] = tuple(map(_policy_of, given))
    return sets[key]


def _policy_of(item: dict[str, Any]) -> Policy:
    examples, not_examples = (tuple(item.get(key) or ()) for key in ("examples", "not_examples"))
    return Policy(item["name"], item.get("description") or "", examples=examples, not_examples=not_examples)
