"""Which messages would help most as `examples` of a policy.

From labelled cases, by trying: the conversations are halved (by a digest of their names, so that the
halves stay the same). Candidates are first messages of one half, for each policy those that were
routed elsewhere and then those that won by least. Greedily, the candidate is taken that makes most
decisions of its own half right, itself left out, until none makes another one right. The other half
took no part: its accuracy before and after says what the suggestions are worth.

From traffic that nobody labelled: the messages on which the two likeliest answers were closest. Which
policy they belong to is for a person to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from ext_proc.core.ports import Router
from ext_proc.core.types import Policy, Verdict
from ext_proc.evaluation.cases import OTHER, Case
from ext_proc.evaluation.measures import accuracy
from ext_proc.evaluation.trials import Progress, Trial, put, said

CANDIDATES = 6
"""Tried for each policy, at most."""
MAX_CHARS = 500
"""Of a message: a longer one shows a document, not a task."""


@dataclass(frozen=True, slots=True)
class Suggestions:
    """For each policy the messages to add, and the held out half's accuracy without and with them."""

    examples: Mapping[str, tuple[str, ...]]
    held_out: int
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class Unclear:
    """A message between two answers, with their probabilities."""

    text: str
    first: tuple[str, float]
    second: tuple[str, float]


class CannotSuggest(Exception):
    """The cases are not of a kind that examples can be chosen from. The text says why."""


async def suggest(router: Router, cases: Sequence[Case], most: int, progress: Progress) -> Suggestions:
    """Choose up to `most` examples for each policy.

    Errors: CannotSuggest when the cases have more than one set of policies; RouterError.
    """
    if len({case.policies for case in cases}) != 1:
        raise CannotSuggest("the cases have several sets of policies: examples are chosen for one at a time")
    policies = cases[0].policies
    chosen_from = [case for case in cases if _half(case) == 0]
    held_out = [case for case in cases if _half(case) == 1]
    trials = await put(router, chosen_from)
    search = _Search(router, policies, trials)
    candidates = _candidates(trials, policies)
    for done, policy in enumerate(policies):
        progress(done, len(policies))
        await search.extend(policy.name, candidates[policy.name], most)
    before = await put(router, held_out)
    after = await put(router, [replace(case, policies=search.policies) for case in held_out])
    progress(len(policies), len(policies))
    return Suggestions(search.added, len(held_out), accuracy(before), accuracy(after))


class _Search:
    """The greedy search, policy by policy. `policies` holds what was added so far."""

    def __init__(self, router: Router, policies: tuple[Policy, ...], trials: Sequence[Trial]) -> None:
        self.policies = policies
        self.added: dict[str, tuple[str, ...]] = {}
        self._router = router
        self._trials = list(trials)

    async def extend(self, name: str, candidates: Sequence[Case], most: int) -> None:
        """Add to one policy while another decision becomes right."""
        left = list(candidates)
        while left and len(self.added.get(name, ())) < most:
            tried = [(candidate, *await self._try(name, candidate)) for candidate in left]
            best, gain, policies, trials = max(tried, key=lambda attempt: attempt[1])
            if gain <= 0:
                return
            left = [candidate for candidate in left if candidate is not best]
            self.policies, self._trials = policies, trials
            self.added[name] = (*self.added.get(name, ()), _text(best))

    async def _try(self, name: str, candidate: Case) -> tuple[int, tuple[Policy, ...], list[Trial]]:
        text = _text(candidate)
        policies = tuple(
            replace(policy, examples=(*policy.examples, text)) if policy.name == name else policy
            for policy in self.policies
        )
        # The message itself would be right for no other reason than that it is there.
        kept = [trial for trial in self._trials if _text(trial.case) != text]
        trials = await put(self._router, [replace(trial.case, policies=policies) for trial in kept])
        gain = sum(trial.is_right for trial in trials) - sum(trial.is_right for trial in kept)
        return gain, policies, trials


def unclear(trials: Sequence[Trial], most: int) -> tuple[Unclear, ...]:
    """The messages on which the two likeliest answers were closest, closest first."""
    found: dict[str, tuple[float, Unclear]] = {}
    for trial in trials:
        answers = _answers(trial.verdict)
        if len(answers) > 1 and _can_be_example(trial.case):
            first, second = answers[:2]
            text = _text(trial.case)
            found.setdefault(text, (first[1] - second[1], Unclear(text, first, second)))
    return tuple(item for _, item in sorted(found.values(), key=lambda pair: pair[0])[:most])


def as_yaml(suggestions: Suggestions) -> Iterator[str]:
    """Lines to paste: the policies by name, with what to add."""
    yield f"# On {suggestions.held_out} turns held out: {_share(suggestions.before)} right without these,"
    yield f"# {_share(suggestions.after)} with them. They were chosen on the other half of the cases."
    if not suggestions.examples:
        yield "# No message of the cases makes another decision right: nothing to add."
    else:
        yield "routing_preferences:"
    for name, texts in suggestions.examples.items():
        yield f"  - name: {_scalar(name)}"
        yield "    examples:"
        yield from (f"      - {_scalar(text)}" for text in texts)


def unclear_as_yaml(items: Sequence[Unclear]) -> Iterator[str]:
    """Lines to paste once a person has said where each belongs."""
    yield "# Messages between two answers. Each under the policy it belongs to is an example of it;"
    yield "# under the other policy it is one of its not_examples."
    for item in items:
        (first, p), (second, q) = item.first, item.second
        yield f"# {_scalar(first)} {p:.2f}, {_scalar(second)} {q:.2f}"
        yield f"- {_scalar(item.text)}"


def _candidates(trials: Sequence[Trial], policies: tuple[Policy, ...]) -> dict[str, list[Case]]:
    """For each policy its messages that went elsewhere, the closest calls first, then the thinnest wins."""
    found: dict[str, list[Case]] = {policy.name: [] for policy in policies}
    seen = {text for policy in policies for text in (*policy.examples, *policy.not_examples)}
    for trial in sorted(trials, key=lambda trial: (trial.is_right, abs(_margin(trial)))):
        case, gold = trial.case, trial.case.gold
        if gold is None or gold == OTHER or _text(case) in seen or not _can_be_example(case):
            continue
        if len(found[gold]) < CANDIDATES:
            seen.add(_text(case))
            found[gold].append(case)
    return found


def _margin(trial: Trial) -> float:
    """How much likelier gold was than the likeliest other answer."""
    answers = dict(_answers(trial.verdict))
    gold = answers.pop(trial.case.gold or OTHER, 0.0)
    return gold - max(answers.values(), default=0.0)


def _answers(verdict: Verdict) -> list[tuple[str, float]]:
    if verdict.failure is not None:
        return [(said(verdict), 0.0)]
    return sorted((*verdict.scores, (OTHER, verdict.none)), key=lambda pair: -pair[1])


def _can_be_example(case: Case) -> bool:
    """Whether the message says by itself what is wanted: the first one of a conversation, and no document."""
    users = [message for message in case.messages if message.role == "user"]
    return len(users) == 1 and 0 < len(_text(case)) <= MAX_CHARS


def _text(case: Case) -> str:
    return next((message.text.strip() for message in reversed(case.messages) if message.role == "user"), "")


def _half(case: Case) -> int:
    return blake2b((case.conversation or case.id).encode("utf-8", "replace"), digest_size=1).digest()[0] % 2


def _share(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.1%}"


def _scalar(text: str) -> str:
    # A JSON string is a YAML scalar, on one line whatever it holds.
    return json.dumps(text, ensure_ascii=False)
