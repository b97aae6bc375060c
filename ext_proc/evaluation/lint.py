"""What is wrong with policies before any request comes: as the router itself sees them.

Nothing but the router's own probabilities is used, so that each router is told of what it cannot do. A
policy's text takes the place of a user's message:

- Two policies **overlap** as far as the description of one is as likely to be routed to the other: the mean,
  both ways, of 2 / (1 + (p(own) / p(other)) ** `_NEARNESS`). 1 is a toss of a coin. The exponent is there
  because a description is nearer to itself than any user's message is to it.
- A **name contradicts** its description when the name alone, asked against all descriptions under names
  that say nothing, goes to the description of another policy.
- A description is **too vague** when the router finds that it falls under none of the policies, or when
  hardly a word of it says what the user wants.
- An **example** is misplaced when the router sends it elsewhere, itself left out of the examples.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ext_proc.core.ports import Router
from ext_proc.core.types import Message, Policy, Scores
from ext_proc.evaluation.trials import Progress

OVERLAP = 0.4
"""From here on it is a warning."""
MAX_OVERLAPS = 3
"""The nearest that are told of one policy: among 200 alike there are 19,900 pairs."""
_NEARNESS = 0.25
_CONTRADICTION = 0.2
"""How much likelier another policy's description must be for a name. A name is a few words: less is noise."""
_MIN_WORDS = 2
_LEAST = 1e-12
"""Stands for a probability of nothing, so that odds are finite."""
_SAYS_NOTHING = frozenset(
    """
    a about all an and any anything are as at be by can do else every everything for from general
    generic get give has have help i in is it its kind kinds make misc miscellaneous my of on or
    other others question questions request requests some something stuff task tasks that the their
    them thing things this to topic topics use user users various want wants what when which with
    work you your
    """.split()  # noqa: SIM905 - a list of as many strings would be no easier to read
)
_WORD = re.compile(r"[^\W\d_]+")


class Part(StrEnum):
    """What of a policy a finding is about."""

    NAME = "name"
    DESCRIPTION = "description"
    EXAMPLES = "examples"
    NOT_EXAMPLES = "not_examples"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to better. `index` is the message's place in a list of examples."""

    policy: str
    part: Part
    text: str
    hint: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far two policies overlap, from 0 to 1."""

    first: str
    second: str
    value: float


@dataclass(frozen=True, slots=True)
class Lint:
    """The findings, in the order of the policies, and all pairs, nearest first."""

    findings: tuple[Finding, ...]
    pairs: tuple[Overlap, ...]


async def lint(router: Router, policies: tuple[Policy, ...], progress: Progress) -> Lint:
    """Look at policies with a router's eyes. Errors: RouterError."""
    await router.prepare(policies)
    answers = []
    for done, policy in enumerate(policies):
        progress(done, len(policies))
        answers.append(await _ask(router, policy.description, policies))
    pairs = overlaps(policies, answers)
    findings = [
        *_overlapping(policies, pairs),
        *_vague(policies, answers),
        *await _contradictions(router, policies),
        *await _misplaced(router, policies),
    ]
    progress(len(policies), len(policies))
    order = {policy.name: place for place, policy in enumerate(policies)}
    return Lint(tuple(sorted(findings, key=lambda found: order[found.policy])), pairs)


def overlaps(policies: Sequence[Policy], answers: Sequence[Scores]) -> tuple[Overlap, ...]:
    """Every pair, nearest first. Shapes: `answers` has what was said of each policy's description."""

    def confused(own: int, other: int) -> float:
        mine, theirs = answers[own].per_policy[own], answers[own].per_policy[other]
        if mine <= theirs:
            return 1.0
        return 2 / (1 + math.pow(mine / max(theirs, _LEAST), _NEARNESS))

    pairs = [
        Overlap(one.name, policies[j].name, (confused(i, j) + confused(j, i)) / 2)
        for i, one in enumerate(policies)
        for j in range(i + 1, len(policies))
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.value))


def _overlapping(policies: Sequence[Policy], pairs: Sequence[Overlap]) -> list[Finding]:
    """At the later of the two, as that is the one that was added: its nearest, and how many more."""
    by_name = {policy.name: policy for policy in policies}
    near = [pair for pair in pairs if pair.value >= OVERLAP]
    left = Counter(pair.second for pair in near)
    told: Counter[str] = Counter()
    findings = []
    for pair in near:
        if told[pair.second] == MAX_OVERLAPS:
            continue
        told[pair.second] += 1
        left[pair.second] -= 1
        text = f'the router can hardly tell "{pair.second}" from "{pair.first}" (overlap {pair.value:.2f})'
        if told[pair.second] == MAX_OVERLAPS and left[pair.second]:
            text += f", nor from {left[pair.second]} more"
        hint = f"say what only one of them is about; the other says: {by_name[pair.first].description}"
        findings.append(Finding(pair.second, Part.DESCRIPTION, text, hint))
    return findings


def _vague(policies: Sequence[Policy], answers: Sequence[Scores]) -> list[Finding]:
    findings = []
    for place, (policy, scores) in enumerate(zip(policies, answers, strict=True)):
        words = {word for word in _WORD.findall(policy.description.casefold()) if word not in _SAYS_NOTHING}
        hint = "name the tasks and things that its users' messages speak of"
        if scores.none >= scores.per_policy[place]:
            text = "this description is too vague to win: by itself it falls under none of the policies"
            findings.append(Finding(policy.name, Part.DESCRIPTION, text, hint))
        elif len(words) < _MIN_WORDS and policy.description.isascii():
            text = "this description is too vague to win: hardly a word of it says what the user wants"
            findings.append(Finding(policy.name, Part.DESCRIPTION, text, hint))
    return findings


async def _contradictions(router: Router, policies: tuple[Policy, ...]) -> list[Finding]:
    nameless = tuple(
        Policy(f"policy {number}", policy.description) for number, policy in enumerate(policies, 1)
    )
    await router.prepare(nameless)
    findings = []
    for place, policy in enumerate(policies):
        scores = (await _ask(router, _spoken(policy.name), nameless)).per_policy
        best = max(range(len(scores)), key=scores.__getitem__)
        if scores[best] - scores[place] >= _CONTRADICTION:
            other = policies[best]
            text = f'the name "{policy.name}" fits the description of "{other.name}" better than its own'
            hint = f"rename one of them, or say more in the description; the other says: {other.description}"
            findings.append(Finding(policy.name, Part.NAME, text, hint))
    return findings


async def _misplaced(router: Router, policies: tuple[Policy, ...]) -> list[Finding]:
    findings = []
    for place, policy in enumerate(policies):
        for index, text in enumerate(policy.examples):
            others = tuple(example for example in policy.examples if example != text)
            without = _with(policies, place, replace(policy, examples=others))
            winner = _winner(await _ask(router, text, without), policies)
            if winner != policy.name:
                where = f'to "{winner}"' if winner else "to none of the policies"
                found = f"the router sends this example {where}"
                hint = "write the description so that it covers the example, or move it"
                findings.append(Finding(policy.name, Part.EXAMPLES, found, hint, index))
        for index, text in enumerate(policy.not_examples):
            if _winner(await _ask(router, text, policies), policies) == policy.name:
                found = "the router sends this message here all the same"
                hint = (
                    "write the description so that it leaves it out, or make it an example of another policy"
                )
                findings.append(Finding(policy.name, Part.NOT_EXAMPLES, found, hint, index))
    return findings


async def _ask(router: Router, text: str, policies: tuple[Policy, ...]) -> Scores:
    return await router.score((Message("user", text),), policies)


def _winner(scores: Scores, policies: Sequence[Policy]) -> str | None:
    best = max(range(len(policies)), key=scores.per_policy.__getitem__)
    return policies[best].name if scores.per_policy[best] > scores.none else None


def _with(policies: tuple[Policy, ...], place: int, policy: Policy) -> tuple[Policy, ...]:
    return (*policies[:place], policy, *policies[place + 1 :])


def _spoken(name: str) -> str:
    """A name as a person would say it: names are often identifiers."""
    return name.replace("_", " ").replace("-", " ")
