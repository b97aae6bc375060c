"""The answers a model may give, as one tree of tokens. Pure.

    {"route": "code review"}         forced      {"route": "
    {"route": "code writing"}        0 code  (from the root)   -> 1 review -> "}
    {"route": "other"}                                         -> 2 writing -> "}
                                     3 other (from the root)   -> "}

What all answers begin with is forced: it is part of the prompt's last tokens. Every token after it that
is followed by another becomes a node; a node's logits say how likely each of its children is. An
answer's last token needs no node, because nothing is asked after it. Whole answers are tokenised, so
merges across the quotes ('"}' is one token in many vocabularies) are those that the model was trained on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

ROOT = -1
"""The parent of a branch's first node: the last forced token."""


@dataclass(frozen=True, slots=True)
class Step:
    """One token of an answer: asked of `parent` (a node's index, or ROOT)."""

    parent: int
    token: int


@dataclass(frozen=True, slots=True)
class AnswerTree:
    """Shapes: `tokens`, `parents` and `depths` have one entry per node, parents before children; the
    first node after the root has depth 0. `answers` has the steps of each answer, as given."""

    forced: tuple[int, ...]
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    answers: tuple[tuple[Step, ...], ...]

    def ancestors(self, node: int) -> list[int]:
        """The node and all above it, which is what it may see of the tree."""
        path = []
        while node != ROOT:
            path.append(node)
            node = self.parents[node]
        return path


def build_tree(answers: Sequence[Sequence[int]]) -> AnswerTree:
    """Arrange tokenised answers.

    Shapes: at least one answer, none of them empty. Errors: ValueError when two answers are the same or
    one begins another, because no model could tell them apart.
    """
    forced = _shared_start(answers)
    nodes: dict[tuple[int, ...], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    steps = []
    for answer in answers:
        rest = tuple(answer[len(forced) :])
        parent, taken = ROOT, []
        for end, token in enumerate(rest, 1):
            taken.append(Step(parent, token))
            if end == len(rest):
                break
            above = parent
            parent = nodes.setdefault(rest[:end], len(tokens))
            if parent == len(tokens):
                tokens.append(token)
                parents.append(above)
        steps.append(tuple(taken))
    _check_distinct([tuple(answer) for answer in answers])
    depths: list[int] = []
    for parent in parents:
        depths.append(0 if parent == ROOT else depths[parent] + 1)
    return AnswerTree(forced, tuple(tokens), tuple(parents), tuple(depths), tuple(steps))


def greedy(tree: AnswerTree, step_logs: Sequence[Sequence[float]]) -> int:
    """The answer that greedy decoding gives: the likeliest step at each branch.

    Shapes: `step_logs` has the log-probability of each step of each answer. Ties go to the earlier answer.
    """
    left = list(range(len(tree.answers)))
    position = 0
    while len(left) > 1:
        best = max(left, key=lambda answer: step_logs[answer][position])
        chosen = tree.answers[best][position]
        left = [answer for answer in left if tree.answers[answer][position] == chosen]
        position += 1
    return left[0]


def _shared_start(answers: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """What all begin with, but never a whole answer: its last token must be asked for."""
    first, last = min(map(tuple, answers)), max(map(tuple, answers))
    limit = min(len(first), len(last)) - 1
    length = 0
    while length < limit and first[length] == last[length]:
        length += 1
    return tuple(first[:length])


def _check_distinct(answers: Sequence[tuple[int, ...]]) -> None:
    ordered = sorted(answers)
    for shorter, longer in itertools.pairwise(ordered):
        if longer[: len(shorter)] == shorter:
            raise ValueError("an answer's tokens are the beginning of another's")
