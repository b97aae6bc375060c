"""What one step of training sees: conversations, a pool of policies, and which of them each may win.

All come from one source, and the pool holds whole groups of near tasks, so that what is wrong is
nearly right. Each conversation sees its own part of the pool: few or many policies, near or far, now
and then without the right one, so that "none of them" is what is right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ext_proc.router.embedded.phrasing import items
from training.corpus import CONFIGURATIONS, SYNTHETIC, Conversation, Corpus, Task
from training.variations import closed, continued, prefixed, thinned

SHARES = {
    SYNTHETIC: 0.27,
    CONFIGURATIONS: 0.4,
    "tasks": 0.1,
    "sgd": 0.11,
    "hwu64": 0.05,
    "banking77": 0.03,
    "mmlu": 0.02,
    "prompts": 0.02,
}
"""Of the steps, by source."""
CONVERSATIONS = 36
_NONES = 6
_STRANGERS = 6
_POOL = 28
_WITHOUT_GOLD = 0.22
_WITHOUT_GROUP = 0.06
_AGGREGATED = 0.3
"""Of the steps, those whose policies may cover several tasks each."""
_AGGREGATE_SIZES = (1, 2, 2, 3, 4, 6)
_ITEMS, _WITH_ITEMS = 4, 0.8
_GENERAL_POOL = 0.15
"""Of the synthetic steps, those whose policies are whole domains."""


@dataclass(frozen=True)
class Batch:
    """`policies` are one way to state each, with some of the `items` that it lists; `all_texts` a few ways,
    with all items of the first.
    Shapes: `allowed` [conversations, policies + 1], the last for none, always allowed; `gold` an
    index into that, and `idle`, whether the newest message asks for nothing, per conversation."""

    conversations: list[Conversation]
    policies: list[str]
    items: list[list[str]]
    all_texts: list[tuple[str, ...]]
    all_items: list[list[str]]
    allowed: NDArray[np.bool_]
    gold: NDArray[np.int64]
    idle: NDArray[np.bool_]


def draw(corpus: Corpus, rng: random.Random, *, held_out: bool = False) -> Batch:
    """Draw a batch from the tasks that are trained on, or from those held out."""
    source = rng.choices(list(SHARES), list(SHARES.values()))[0]
    return draw_from(corpus, source, rng, held_out=held_out)


def draw_from(corpus: Corpus, source: str, rng: random.Random, *, held_out: bool = False) -> Batch:
    """Draw a batch from one source."""
    tasks = [task for task in corpus.tasks[source] if task.held_out is held_out]
    if source == SYNTHETIC and rng.random() < _GENERAL_POOL:
        return _domains(corpus, tasks, rng, held_out)
    pool = _pool(tasks, rng)
    if rng.random() < _AGGREGATED:
        pool = _aggregated(pool, rng)
    rights = rng.choices(pool, k=CONVERSATIONS)
    return _assemble(corpus, pool, [(task, pool.index(task)) for task in rights], rng, held_out)


def _pool(tasks: Sequence[Task], rng: random.Random) -> list[Task]:
    """Some groups, nearly whole, until there are enough."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.group, []).append(task)
    names = sorted(groups)
    rng.shuffle(names)
    # Large groups more often, as they hold more to learn; but not the large ones only.
    names.sort(key=lambda name: rng.random() ** (1 / len(groups[name]) ** 0.5), reverse=True)
    pool: list[Task] = []
    share = _POOL if len(names) == 1 else 8
    for name in names:
        room = min(share, _POOL - len(pool))
        if room <= 0:
            break
        pool += rng.sample(groups[name], min(room, len(groups[name])))
    return pool


def _aggregated(pool: Sequence[Task], rng: random.Random) -> list[Task]:
    """Policies that each cover a few near tasks, and list them."""
    groups: dict[str, list[Task]] = {}
    for task in pool:
        groups.setdefault(task.group, []).append(task)
    found: list[Task] = []
    for name, tasks in groups.items():
        rng.shuffle(tasks)
        rest = tasks
        while rest:
            size = rng.choice(_AGGREGATE_SIZES)
            members, rest = rest[:size], rest[size:]
            if len(members) == 1:
                found.append(members[0])
                continue
            names = [min(task.texts, key=len).split(": ")[-1].strip(". ") for task in members]
            listed = f"{', '.join(names[:-1])}{rng.choice((' and ', ', ', ' or '))}{names[-1]}"
            label = name.replace("-", " ")
            texts = [listed, f"{rng.choice(('questions about', 'help with', 'anything about'))} {listed}"]
            if len(label) > 2:
                texts += [f"{label}: {listed}", f"{label}: everything about {listed}"]
            conversations = tuple(each for task in members for each in task.conversations)
            general = any(task.catches_all for task in members)
            found.append(
                replace(members[0], texts=tuple(texts), conversations=conversations, catches_all=general)
            )
    return found


def _items(text: str) -> list[str]:
    name, mark, description = text.partition(": ")
    return items(name, description) if mark else items("", text)


def _some(listed: Sequence[str], rng: random.Random) -> list[str]:
    """A few, which is as good and takes less time; now and then none."""
    return rng.sample(listed, min(_ITEMS, len(listed))) if rng.random() < _WITH_ITEMS else []


def _domains(corpus: Corpus, tasks: Sequence[Task], rng: random.Random, held_out: bool) -> Batch:
    """Policies that name whole domains, conversations of any task in them."""
    general = {task.group: task for task in tasks if task.catches_all}
    pool = rng.sample(list(general.values()), min(_POOL, len(general)))
    groups = [task.group for task in pool]
    inside = [task for task in tasks if task.group in groups]
    rights = rng.choices(inside, k=CONVERSATIONS)
    return _assemble(corpus, pool, [(task, groups.index(task.group)) for task in rights], rng, held_out)


def _assemble(
    corpus: Corpus, pool: list[Task], rights: list[tuple[Task, int]], rng: random.Random, held_out: bool
) -> Batch:
    none = len(pool)
    conversations, allowed, gold = [], [], []
    for task, right in rights:
        conversation = rng.choice(task.conversations)
        others = [other for other in pool if other is not task and other.group != task.group] or pool
        stranger = rng.choice(rng.choice(others).conversations)
        conversation = continued(conversation, rng)
        conversations.append(thinned(prefixed(conversation, stranger, rng), rng))
        row, index = _row(corpus, pool, task, right, rng)
        allowed.append(row)
        gold.append(index)
    nones = corpus.nones_held_out if held_out else corpus.nones
    idle = [False] * len(rights)
    for _ in range(_NONES):
        before = rng.choice(rng.choice(pool).conversations)
        conversations.append(closed(before, rng.choice(nones), rng))
        allowed.append(_subset(none, list(range(none)), rng))
        gold.append(none)
        idle.append(True)
    for conversation, fitting in _strangers(corpus, pool, rng):
        conversations.append(conversation)
        allowed.append(_subset(none, fitting, rng))
        gold.append(none)
        idle.append(False)
    texts = [rng.choice(task.texts) for task in pool]
    stated = [tuple(dict.fromkeys(task.texts))[:3] for task in pool]
    return Batch(
        conversations,
        texts,
        [_some(_items(text), rng) for text in texts],
        stated,
        [_items(each[0]) for each in stated],
        np.array(allowed),
        np.array(gold),
        np.array(idle),
    )


def _strangers(
    corpus: Corpus, pool: list[Task], rng: random.Random
) -> Iterator[tuple[Conversation, list[int]]]:
    """Conversations that no policy of a configuration covers, and where those policies are in the pool."""
    places: dict[str, list[int]] = {}
    for index, task in enumerate(pool):
        if corpus.uncovered.get(task.group):
            places.setdefault(task.group, []).append(index)
    if places:
        for group in rng.choices(list(places), k=_STRANGERS):
            yield rng.choice(corpus.uncovered[group]), places[group]


def _row(
    corpus: Corpus, pool: list[Task], task: Task, right: int, rng: random.Random
) -> tuple[NDArray[np.bool_], int]:
    """What one conversation may choose from, and what is right."""
    none = len(pool)
    near = [i for i, other in enumerate(pool) if other.group == pool[right].group and i != right]
    # Configurations of one trade have policies that fit each other's conversations.
    apart = task.source != CONFIGURATIONS
    far = [i for i, other in enumerate(pool) if other.group != pool[right].group and apart]
    never = {i for i, other in enumerate(pool) if corpus.may_both_fit(task, other) and i != right}
    chance = rng.random()
    if chance < _WITHOUT_GROUP and far:
        row = _subset(none, far, rng)
        row[list(never)] = False
        return row, none
    row = _subset(none, near + far if rng.random() < 0.75 or len(near) < 2 else near, rng)
    if near and rng.random() < 0.5:
        row[near] = True
    gold = right
    if chance < _WITHOUT_GROUP + _WITHOUT_GOLD and not never:
        gold = none
        for i in near:
            if pool[i].catches_all:
                # The one that takes all of its domain takes this too.
                row[i] = rng.random() < 0.5
                gold = i if row[i] else none
        row[right] = False
    else:
        row[right] = True
    row[list(never)] = False
    return row, gold


def _subset(none: int, among: Sequence[int], rng: random.Random) -> NDArray[np.bool_]:
    """All of them, or a few; none is always there."""
    row = np.zeros(none + 1, np.bool_)
    size = len(among) if rng.random() < 0.3 else round(2 * (len(among) / 2 + 1) ** rng.random())
    row[rng.sample(list(among), min(size, len(among)))] = True
    row[none] = True
    return row
