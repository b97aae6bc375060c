"""Labelled or recorded conversations from files. docs/evaluation.md describes the format.

One JSON object a line: `messages` and `gold`, the policy's name or `other`, for the last user turn; or
`gold` as an object, user turn (from 1) to name, for every turn of the conversation. The policies are
in `policies`, or in `policy_sets/NAME.yaml` beside the file when `policy_set` names them. A recorded
line has the decision in `decided`. Unknown fields mean nothing here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from ext_proc.core.errors import Reason
from ext_proc.core.parse import read_message
from ext_proc.core.types import Message, Policy, Verdict

OTHER = "other"
"""The gold label of a conversation that falls under none of the policies."""

POLICY_SETS = "policy_sets"
_SET_NAME = re.compile(r"[\w.-]{1,128}")
_SHOWN_GOLD = 60


class Grain(StrEnum):
    """How exact the policy is that a conversation falls under: its domain, or an action in one."""

    ACTION = "action"
    DOMAIN = "domain"


@dataclass(frozen=True, slots=True)
class Case:
    """One user turn to be routed.

    `gold` is a policy's name or `OTHER`; None where nobody labelled it. `conversation` and `span` (a
    run of turns with one label) are None where the file tells none. `grain` is that of the gold
    policy, None where the policies have no domains. `decided` is what was decided when it was recorded.
    """

    id: str
    messages: tuple[Message, ...]
    policies: tuple[Policy, ...]
    gold: str | None
    conversation: str | None = None
    span: str | None = None
    grain: Grain | None = None
    decided: Verdict | None = None


@dataclass(frozen=True, slots=True)
class CaseFile:
    """What was read of one file. `problems` are the lines that are no cases: `file:line: what is wrong`."""

    cases: tuple[Case, ...]
    problems: tuple[str, ...] = ()


class NotACase(Exception):
    """A line that cannot be used. The text says why."""


@dataclass(frozen=True, slots=True)
class _PolicySet:
    """Policies as a router may see them, and their domains, which it may not."""

    policies: tuple[Policy, ...]
    domains: Mapping[str, str | None]

    def label(self, gold: object) -> str:
        if isinstance(gold, str) and (gold == OTHER or gold in self.domains):
            return gold
        raise NotACase(f"gold {_shown(gold)} is none of the policies")

    def grain(self, gold: str | None) -> Grain | None:
        if gold is None or gold == OTHER or not any(self.domains.values()):
            return None
        return Grain.ACTION if self.domains[gold] else Grain.DOMAIN


@dataclass(slots=True)
class _Sets:
    """The policy sets of one file; lines with the same policies share one tuple."""

    path: Path
    given: _PolicySet | None
    with_domains: bool
    known: dict[str, _PolicySet] = field(default_factory=dict)

    def of(self, row: dict[str, Any]) -> _PolicySet:
        if self.given is not None:
            return self.given
        inline, name = row.get("policies"), row.get("policy_set")
        if inline is None and name is None:
            raise NotACase('it has neither "policies" nor "policy_set": give --config FILE')
        key = f"set {name}" if inline is None else json.dumps(inline)
        if key not in self.known:
            self.known[key] = _policy_set(
                self._read(name) if inline is None else inline, with_domains=self.with_domains
            )
        return self.known[key]

    def _read(self, name: object) -> object:
        if not isinstance(name, str) or not _SET_NAME.fullmatch(name):
            raise NotACase('"policy_set" is not a name')
        path = self.path.parent / POLICY_SETS / f"{name}.yaml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = getattr(error, "strerror", None) or "no YAML in UTF-8"
            raise NotACase(f"the policy set {path} cannot be read: {reason}") from error
        return content.get("policies") if isinstance(content, dict) else content


def read_cases(path: Path, policies: tuple[Policy, ...] | None = None, *, labelled: bool = True) -> CaseFile:
    """Read a file of cases, every line that is one, and say what is wrong with the others.

    `policies`, where given, take the place of the file's own. Without `labelled` the file is a record of
    decisions: `gold` may be missing, and the domains of its policies count, as they did then.
    Errors: OSError.
    """
    given = None if policies is None else _PolicySet(policies, {p.name: p.domain for p in policies})
    sets = _Sets(path, given, with_domains=not labelled)
    cases: list[Case] = []
    problems: list[str] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = _row(line)
                cases += _cases_of(row, sets.of(row), f"line {number}", labelled)
            except NotACase as error:
                problems.append(f"{path}:{number}: {error}")
    return CaseFile(tuple(_with_spans(cases)), tuple(problems))


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig").rstrip())
    except json.JSONDecodeError as error:
        raise NotACase(f"no JSON: {error.msg} in column {error.colno}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise NotACase("no JSON in UTF-8") from error
    if not isinstance(row, dict):
        raise NotACase("no JSON object")
    return row


def _cases_of(row: dict[str, Any], asked: _PolicySet, place: str, labelled: bool) -> Iterator[Case]:
    messages = _messages(row.get("messages"))
    conversation, span = _id(row, "conversation_id"), _id(row, "span_id")
    name = _id(row, "id")
    gold = row.get("gold")
    if gold is None and labelled:
        raise NotACase('it has no "gold"')
    if not isinstance(gold, dict):
        label = None if gold is None else asked.label(gold)
        yield Case(
            name or conversation or place,
            messages,
            asked.policies,
            label,
            conversation,
            span,
            asked.grain(label),
            _decided(row.get("decided"), asked),
        )
        return
    conversation = conversation or name or place
    ends = [index + 1 for index, message in enumerate(messages) if message.role == "user"]
    for turn in _turns(gold, len(ends)):
        label = asked.label(gold[str(turn)])
        yield Case(
            f"{conversation}-t{turn}",
            messages[: ends[turn - 1]],
            asked.policies,
            label,
            conversation,
            None,
            asked.grain(label),
        )


def _turns(gold: dict[str, object], users: int) -> list[int]:
    turns = []
    for key in gold:
        if not key.isdecimal() or not 1 <= int(key) <= users:
            raise NotACase(f"gold has a user turn {_shown(key)}, and there are {users} of them")
        turns.append(int(key))
    if not turns:
        raise NotACase("gold is empty")
    return sorted(turns)


def _messages(given: object) -> tuple[Message, ...]:
    if not isinstance(given, list):
        raise NotACase('"messages" is not a list')
    messages = [read_message(item) for item in given]
    known = tuple(message for message in messages if message is not None)
    if len(known) < len(messages):
        raise NotACase(f"message {messages.index(None) + 1} has no role, or a content that is no text")
    if not any(message.role == "user" for message in known):
        raise NotACase("no message is the user's")
    return known


def _id(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, int):
        return str(value)
    raise NotACase(f'"{key}" is not text')


def _decided(given: object, asked: _PolicySet) -> Verdict | None:
    """A decision as `core.record.decided_of` wrote it."""
    if given is None:
        return None
    if not isinstance(given, dict):
        raise NotACase('"decided" is not an object')
    try:
        policy, failure = given.get("policy"), given.get("failure")
        scores = tuple((str(name), float(score)) for name, score in (given.get("scores") or {}).items())
        none = float(given.get("none") or 0.0)
        reason = None if failure is None else Reason(failure)
    except (TypeError, ValueError, AttributeError) as error:
        raise NotACase('"decided" is not a decision') from error
    return Verdict(None if policy in (None, OTHER) else str(policy), scores, none, reason)


def _policy_set(given: object, *, with_domains: bool) -> _PolicySet:
    if not isinstance(given, list):
        raise NotACase("its policies are not a list")
    policies: dict[str, Policy] = {}
    domains: dict[str, str | None] = {}
    for item in given:
        policy = _policy(item)
        if policy is None:
            raise NotACase("a policy needs a name, and texts for what else it has")
        if policy.name in policies or policy.name == OTHER:
            raise NotACase(f"a policy cannot be called {_shown(policy.name)} here")
        policies[policy.name] = policy if with_domains else replace(policy, domain=None)
        domains[policy.name] = policy.domain
    return _PolicySet(tuple(policies.values()), domains)


def _policy(item: object) -> Policy | None:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"]:
        return None
    description, domain = item.get("description") or "", item.get("domain") or None
    lists = [item.get(key) or [] for key in ("examples", "not_examples")]
    if not isinstance(description, str) or not (domain is None or isinstance(domain, str)):
        return None
    if not all(isinstance(given, list) and all(isinstance(text, str) for text in given) for given in lists):
        return None
    return Policy(item["name"], description, domain, tuple(lists[0]), tuple(lists[1]))


def _with_spans(cases: Sequence[Case]) -> Iterator[Case]:
    """Number the runs of one label in conversations whose file names no spans."""
    last: dict[str, tuple[str | None, int]] = {}
    for case in cases:
        if case.span is not None or case.conversation is None:
            yield case
            continue
        label, number = last.get(case.conversation, (None, 0))
        number += case.gold != label or number == 0
        last[case.conversation] = case.gold, number
        yield replace(case, span=f"{case.conversation}-s{number}")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_GOLD else text[:_SHOWN_GOLD] + "…"
