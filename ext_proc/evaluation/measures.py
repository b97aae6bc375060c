"""How good decisions are. Pure: trials in, shares out.

Sources: turn, span and conversation accuracy, fQfA, fQcA and irrelevance are those of the Arch-Router
paper (arXiv 2506.16655); the expected calibration error is Guo et al. 2017, over ten equal bins.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from ext_proc.core.types import Policy
from ext_proc.core.verdict import confidence
from ext_proc.evaluation.cases import OTHER, Grain
from ext_proc.evaluation.trials import Trial

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Decisions of like confidence, from `low` to `low` + 1/`BINS`: how sure they were, how often right."""

    low: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class PolicyMeasures:
    """One policy: how often it was gold, how often said, and how often both. `OTHER` is one too."""

    name: str
    gold: int
    said: int
    both: int

    @property
    def precision(self) -> float | None:
        return self.both / self.said if self.said else None

    @property
    def recall(self) -> float | None:
        return self.both / self.gold if self.gold else None


@dataclass(frozen=True, slots=True)
class Confusion:
    """Two policies taken for one another: `n` times the first was gold, `back` times the second."""

    first: Policy
    second: Policy
    n: int
    back: int


@dataclass(frozen=True, slots=True)
class Measures:
    """Shares from 0 to 1; None where there was nothing to take a share of.

    `in_set_accuracy` counts the turns that a policy fits, `other_recall` the rest; `fqfa` and `fqca` are
    `in_set_accuracy` where the gold policy is an action in a domain, and where it is a domain. Times are
    milliseconds per decision. `failures` counts the router's by reason: a failed decision is never right.
    """

    n: int
    conversations: int
    spans: int
    turn_accuracy: float | None
    span_accuracy: float | None
    conversation_accuracy: float | None
    in_set: int
    in_set_accuracy: float | None
    other_recall: float | None
    other_precision: float | None
    fqfa: float | None
    fqca: float | None
    ece: float | None
    reliability: tuple[Bin, ...]
    policies: tuple[PolicyMeasures, ...]
    confusions: tuple[Confusion, ...]
    failures: tuple[tuple[str, int], ...]
    p50_ms: float | None
    p99_ms: float | None

    @property
    def irrelevance(self) -> float | None:
        """The paper's word for the recall of "none of them"."""
        return self.other_recall


def measure(trials: Sequence[Trial]) -> Measures:
    """Compare what was said with gold. Every case is labelled."""
    policies = _policies(trials)
    other = next((row for row in policies if row.name == OTHER), None)
    answered = [trial for trial in trials if trial.verdict.failure is None]
    reliability = bins_of([(confidence(trial.verdict), trial.is_right) for trial in answered])
    times = sorted(trial.seconds * 1000 for trial in trials if trial.seconds is not None)
    spans = groups_right(trials, lambda trial: trial.case.span)
    conversations = groups_right(trials, lambda trial: trial.case.conversation)
    in_set = [trial for trial in trials if trial.case.gold != OTHER]
    return Measures(
        n=len(trials),
        conversations=len(conversations),
        spans=len(spans),
        turn_accuracy=accuracy(trials),
        span_accuracy=_share(spans),
        conversation_accuracy=_share(conversations),
        in_set=len(in_set),
        in_set_accuracy=accuracy(in_set),
        other_recall=other.recall if other else None,
        other_precision=other.precision if other else None,
        fqfa=accuracy([trial for trial in trials if trial.case.grain is Grain.ACTION]),
        fqca=accuracy([trial for trial in trials if trial.case.grain is Grain.DOMAIN]),
        ece=calibration_error(reliability),
        reliability=reliability,
        policies=policies,
        confusions=_confusions(trials),
        failures=tuple(sorted(Counter(trial.said for trial in trials if trial.verdict.failure).items())),
        p50_ms=quantile(times, 0.50),
        p99_ms=quantile(times, 0.99),
    )


def accuracy(trials: Sequence[Trial]) -> float | None:
    return _share([trial.is_right for trial in trials])


def groups_right(trials: Iterable[Trial], group_of: Callable[[Trial], Hashable | None]) -> list[bool]:
    """Whether all of a group was right, for each group; trials of no group are left out."""
    groups: dict[Hashable, bool] = {}
    for trial in trials:
        group = group_of(trial)
        if group is not None:
            groups[group] = groups.get(group, True) and trial.is_right
    return list(groups.values())


def bins_of(judged: Iterable[tuple[float, bool]]) -> tuple[Bin, ...]:
    """Pairs of confidence and "was right" in equal bins of confidence, those left out that stay empty."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for value, hit in judged:
        bins[min(int(value * BINS), BINS - 1)].append((value, hit))
    return tuple(
        Bin(
            low=index / BINS,
            n=len(pairs),
            confidence=sum(value for value, _ in pairs) / len(pairs),
            accuracy=sum(hit for _, hit in pairs) / len(pairs),
        )
        for index, pairs in enumerate(bins)
        if pairs
    )


def calibration_error(reliability: Sequence[Bin]) -> float | None:
    """The gap between confidence and accuracy, averaged over the bins by their size."""
    n = sum(bin_.n for bin_ in reliability)
    return sum(bin_.n * abs(bin_.confidence - bin_.accuracy) for bin_ in reliability) / n if n else None


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """A quantile of ascending values, between the two nearest; None of nothing."""
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def _policies(trials: Sequence[Trial]) -> tuple[PolicyMeasures, ...]:
    """By name, in the order in which the cases offer them, `OTHER` last. A failure says none of them."""
    gold = Counter(trial.case.gold for trial in trials)
    said = Counter(trial.said for trial in trials)
    both = Counter(trial.said for trial in trials if trial.is_right)
    names = dict.fromkeys(policy.name for trial in _one_of_each_set(trials) for policy in trial.case.policies)
    return tuple(
        PolicyMeasures(name, gold[name], said[name], both[name])
        for name in (*names, OTHER)
        if gold[name] or said[name]
    )


def _one_of_each_set(trials: Iterable[Trial]) -> Iterable[Trial]:
    return {id(trial.case.policies): trial for trial in trials}.values()


def _confusions(trials: Sequence[Trial]) -> tuple[Confusion, ...]:
    """Pairs of policies of which one was gold and the other said, most frequent first."""
    counts: Counter[tuple[Policy, Policy]] = Counter()
    for trial in trials:
        if trial.is_right:
            continue
        by_name = {policy.name: policy for policy in trial.case.policies}
        gold, wrong = by_name.get(trial.case.gold or ""), by_name.get(trial.said)
        if gold is not None and wrong is not None:
            counts[gold, wrong] += 1
    confusions = []
    for (first, second), n in counts.items():
        back = counts.get((second, first), 0)
        if (n, first.name) > (back, second.name):
            confusions.append(Confusion(first, second, n, back))
    return tuple(sorted(confusions, key=lambda pair: (-(pair.n + pair.back), pair.first.name)))
