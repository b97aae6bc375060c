"""The training data: tasks, how each may be stated, and conversations that belong to it.

Reads the files of `train/`: rows with `policy_texts` and `queries` or `conversations`, the rows of
`synthetic-*` with `domain`, `name`, `description` and `paraphrases`, and `synthetic-none`. Beside them the
files of `data/` in this folder, written for this project: `tasks-*` of the shape of `synthetic-*`, and
`configurations-*`, rows with a configuration's `policies` and whole `conversations`, whose users' turns
say which policy is right, or "other", and of those whether they are `idle`: ask for nothing.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ext_proc.core.types import Message
from ext_proc.router.embedded.phrasing import readable

Conversation = tuple[Message, ...]

SYNTHETIC = "synthetic"
CONFIGURATIONS = "configurations"
OURS = Path(__file__).parent / "data"
_OTHER = "other"
_RESIDUAL = re.compile(
    r"\b(?:any|every|all|what)\w*(?: \w+)? (?:other|else|remaining)\b|^(?:other|remaining)\b"
    r"|\bnot (?:listed|covered)\b|\bmisc\w*|\bthe rest\b|\bgeneral (?:\w+ )?questions\b",
    re.IGNORECASE,
)
"""In the name or the description of a policy that takes what the others of its configuration leave."""
_SYNTHETIC_FILES = ("agents", "knowledge", "professional", "software", "writing")
_PUBLIC_FILES = ("banking77", "hwu64", "mmlu", "prompts", "sgd", "tasks")
_HELD_OUT_ONE_IN = 8
_SALT = 14
"""The first that holds out some of every source. No accuracy was looked at to choose it."""
_OWN_GROUPS = frozenset({SYNTHETIC, CONFIGURATIONS, "sgd", "tasks"})
"""Sources whose groups are topics of their own: a group is held out whole. Elsewhere single tasks are."""


@dataclass(frozen=True)
class Task:
    """What a policy may stand for. `texts` are ways to state it.

    Tasks of one `group` are near each other. `catches_all` marks the one that covers its whole group.
    `held_out` ones are never trained on: they calibrate and choose.
    """

    source: str
    group: str
    texts: tuple[str, ...]
    conversations: tuple[Conversation, ...]
    catches_all: bool
    held_out: bool


@dataclass(frozen=True)
class Corpus:
    """`tasks` by source; `nones` are conversations whose last message asks for nothing; `uncovered` those
    that ask for what no task of a group is.

    `overlaps` holds pairs of groups of one source that may both be right for a message; a pair of one
    group with itself says so of the tasks within.
    """

    tasks: dict[str, tuple[Task, ...]]
    nones: tuple[Conversation, ...]
    nones_held_out: tuple[Conversation, ...]
    overlaps: frozenset[tuple[str, str]]
    uncovered: dict[str, tuple[Conversation, ...]]

    def may_both_fit(self, one: Task, other: Task) -> bool:
        """Whether `other` must not count as wrong for a conversation of `one`."""
        return one is not other and (one.group, other.group) in self.overlaps

    def without(self, unwanted: Callable[[Conversation], bool]) -> Corpus:
        """The same without some conversations, and without tasks that have no other."""

        def rest(conversations: tuple[Conversation, ...]) -> tuple[Conversation, ...]:
            return tuple(each for each in conversations if not unwanted(each))

        kept = {
            source: [replace(task, conversations=rest(task.conversations)) for task in tasks]
            for source, tasks in self.tasks.items()
        }
        tasks = {
            source: tuple(task for task in found if task.conversations) for source, found in kept.items()
        }
        uncovered = {group: rest(conversations) for group, conversations in self.uncovered.items()}
        return replace(self, tasks=tasks, nones=rest(self.nones), uncovered=uncovered)


def read_corpus(directory: Path, ours: Path = OURS) -> Corpus:
    """Read `train/` and what is `ours`. Errors: OSError, KeyError or ValueError when a file is not as
    described.
    """
    tasks: dict[str, list[Task]] = {}
    for name in _PUBLIC_FILES:
        for row in _rows(directory / f"{name}.jsonl"):
            tasks.setdefault(name, []).append(_public(row))
    for name in _SYNTHETIC_FILES:
        for row in _rows(directory / f"synthetic-{name}.jsonl"):
            tasks.setdefault(SYNTHETIC, []).append(_synthetic(row))
    for path in sorted(ours.glob("tasks-*.jsonl")):
        tasks[SYNTHETIC] += [_synthetic(row) for row in _rows(path)]
    nones_of: dict[bool, list[Conversation]] = {True: [], False: []}
    for row in _rows(directory / "synthetic-none.jsonl"):
        messages = _conversation(row["messages"])
        nones_of[_is_held_out(messages[-1].text)].append(messages)
    uncovered: dict[str, tuple[Conversation, ...]] = {}
    for path in sorted(ours.glob("configurations-*.jsonl")):
        for number, row in enumerate(_rows(path)):
            group = f"{path.stem}/{number}"
            found, idle, uncovered[group] = _configuration(group, row)
            tasks.setdefault(CONFIGURATIONS, []).extend(found)
            nones_of[_is_held_out(group)] += idle
    return Corpus(
        {source: tuple(found) for source, found in tasks.items()},
        tuple(nones_of[False]),
        tuple(nones_of[True]),
        _overlaps(directory / "tasks-overlaps.json") | _overlaps(ours / "tasks-overlaps.json"),
        uncovered,
    )


def _public(row: dict[str, Any]) -> Task:
    source, group = row["source"], row["group"]
    file = source if source in _PUBLIC_FILES else "tasks"
    texts = tuple(text.replace("_", " ") for text in row["policy_texts"])
    conversations = [_conversation(messages) for messages in row.get("conversations", ())]
    conversations += [(Message("user", query),) for query in row.get("queries", ()) if query.strip()]
    key = f"{file}/{group}" if file in _OWN_GROUPS else f"{file}/{texts[0]}"
    return Task(file, group, texts, tuple(conversations), False, _is_held_out(key))


def _synthetic(row: dict[str, Any]) -> Task:
    name, description = readable(row["name"]), row["description"]
    domain, action = row["domain"].replace("_", " "), row["action"].replace("_", " ")
    stated = f"{name}: {description}"
    paraphrases: list[str] = row["paraphrases"]
    texts = (
        *(stated, stated, description),
        *(name, f"{domain}: {action}", f"{domain}: {description}"),
        *paraphrases,
        *(f"{name}: {paraphrase}" for paraphrase in paraphrases),
        *(f"{action}: {paraphrase}" for paraphrase in paraphrases),
    )
    conversations = tuple(_conversation(messages) for messages in row["conversations"])
    catches_all = row["name"].endswith("_general")
    return Task(SYNTHETIC, domain, texts, conversations, catches_all, _is_held_out(f"synthetic/{domain}"))


def _configuration(
    group: str, row: dict[str, Any]
) -> tuple[list[Task], list[Conversation], tuple[Conversation, ...]]:
    """Of the conversations, one for each user's turn: the tasks with theirs, idle ones, uncovered ones."""
    of: dict[str, list[Conversation]] = {}
    idle: list[Conversation] = []
    for messages in row["conversations"]:
        conversation = _conversation(messages)
        for place, message in enumerate(messages):
            if message["role"] == "user":
                found = idle if message.get("idle") else of.setdefault(message["gold"], [])
                found.append(conversation[: place + 1])
    held_out = _is_held_out(group)
    tasks = [
        Task(
            CONFIGURATIONS, group, _stated(policy), tuple(of[policy["name"]]), _is_residual(policy), held_out
        )
        for policy in row["policies"]
        if policy["name"] in of
    ]
    return tasks, idle, tuple(of.get(_OTHER, ()))


def _stated(policy: dict[str, Any]) -> tuple[str, ...]:
    name, description = readable(policy["name"]), policy["description"]
    stated, others = f"{name}: {description}", policy["paraphrases"]
    return (stated, stated, description, name, *others, *(f"{name}: {other}" for other in others))


def _is_residual(policy: dict[str, Any]) -> bool:
    return any(_RESIDUAL.search(text) for text in (readable(policy["name"]), policy["description"]))


def _is_held_out(key: str) -> bool:
    return zlib.crc32(f"{_SALT}/{key}".encode()) % _HELD_OUT_ONE_IN == 0


def _overlaps(path: Path) -> frozenset[tuple[str, str]]:
    found = json.loads(path.read_text(encoding="utf-8"))
    within = {(group, group) for group in found["multi_label_within_group"]}
    pairs = {(one, other) for one, other in found["group_pairs"]}
    return frozenset(within | pairs | {(other, one) for one, other in pairs})


def _conversation(messages: list[dict[str, str]]) -> Conversation:
    return tuple(Message(message["role"], message["content"]) for message in messages)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)
