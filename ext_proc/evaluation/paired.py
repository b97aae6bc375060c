"""Whether two deciders differ on the same cases. Pure, and the same at each run.

Two methods, by what the cases are:

- One turn a conversation: turns are independent. The interval is Newcombe's for a difference of
  paired proportions (Newcombe 1998, "Improved confidence intervals for the difference between binomial
  proportions based on paired data", method 10), the p value McNemar's exact one (1947; two-sided
  binomial test of the turns on which just one of both is right).
- Conversations of several turns: the turns of one depend on each other. The interval is the
  percentile interval of a paired bootstrap that draws whole conversations (Efron and Tibshirani 1993,
  chapters 8 and 13; Field and Welsh 2007 for clusters). McNemar's test would be too sure, so there is
  no p value.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 20_240_229
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_CHUNK = 500
"""Resamples drawn at a time, so that ten thousand conversations take tens of megabytes."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The second's share of right turns less the first's, with its `CONFIDENCE` interval."""

    value: float
    low: float
    high: float
    method: str
    p_value: float | None = None

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out "no difference"."""
        return self.low > 0 or self.high < 0


def difference(
    first: Sequence[bool], second: Sequence[bool], clusters: Sequence[Hashable | None]
) -> Difference | None:
    """Compare two series of "was right" over the same turns; None of nothing.

    Shapes: all as long as each other. `clusters` names each turn's conversation; None is one of its own.
    """
    if not first:
        return None
    numbers: dict[Hashable, int] = {}
    places = [
        numbers.setdefault(index if name is None else (name,), len(numbers))
        for index, name in enumerate(clusters)
    ]
    gains = [int(after) - int(before) for before, after in zip(first, second, strict=True)]
    value = sum(gains) / len(gains)
    if len(numbers) == len(first):
        low, high = newcombe(first, second)
        return Difference(
            value, low, high, "Newcombe 1998, method 10; exact McNemar test", mcnemar(first, second)
        )
    low, high = bootstrap(gains, places)
    return Difference(
        value, low, high, f"paired bootstrap of {len(numbers)} conversations, {RESAMPLES} times"
    )


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The two-sided p value of as uneven a split of the turns on which just one of both is right."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n, least = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, k) for k in range(least + 1))
    return min(1.0, tail / math.pow(2, n - 1))


def newcombe(first: Sequence[bool], second: Sequence[bool]) -> tuple[float, float]:
    """The hybrid score interval of the difference, second less first."""
    n = len(first)
    both = sum(a and b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    neither = n - both - only_second - only_first
    p1, p2 = (both + only_second) / n, (both + only_first) / n
    (l1, u1), (l2, u2) = _wilson(p1, n), _wilson(p2, n)
    phi = _phi(both, only_second, only_first, neither)
    below = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    above = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    value = p1 - p2
    return value - math.sqrt(max(below, 0.0)), value + math.sqrt(max(above, 0.0))


def bootstrap(gains: Sequence[int], places: Sequence[int]) -> tuple[float, float]:
    """The interval of the mean gain when whole conversations are drawn anew.

    Where no turn changed, every drawing is the same: a width of zero says that, not that it is certain.
    """
    count = max(places) + 1
    sums = np.bincount(places, weights=gains, minlength=count)
    sizes = np.bincount(places, minlength=count)
    random = np.random.default_rng(SEED)
    means = []
    for _ in range(RESAMPLES // _CHUNK):
        drawn = random.integers(count, size=(_CHUNK, count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    edge = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [edge, 1 - edge])
    return float(low), float(high)


def _wilson(share: float, n: int) -> tuple[float, float]:
    """The score interval of one proportion. Source: Wilson 1927."""
    middle = share + _Z**2 / (2 * n)
    spread = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
    whole = 1 + _Z**2 / n
    return (middle - spread) / whole, (middle + spread) / whole


def _phi(both: int, only_second: int, only_first: int, neither: int) -> float:
    """The correlation of both, with Newcombe's continuity correction; 0 where a margin is empty."""
    margins = (both + only_second) * (only_first + neither) * (both + only_first) * (only_second + neither)
    if margins == 0:
        return 0.0
    product: float = both * neither - only_second * only_first
    n = both + only_second + only_first + neither
    if product > 0:
        product = max(product - n / 2, 0)
    return product / math.sqrt(margins)
