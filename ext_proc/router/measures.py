"""How good a router's answers are. Pure: cases and scores in, shares out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ext_proc.core.types import Verdict
from ext_proc.router.cases import Case

_BINS = 10
"""Of the calibration error: the usual number (Guo et al. 2017)."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Shares from 0 to 1; NaN where there was no case to take a share of.

    `turn_accuracy` counts all turns, `fitting_accuracy` those that a policy fits; `other_recall` is
    the share of the rest that were told so. `ece` is the expected calibration error of the winner's
    probability, "none of them" included.
    """

    n: int
    turn_accuracy: float
    fitting_accuracy: float
    other_recall: float
    ece: float


def measure(cases: Sequence[Case], verdicts: Sequence[Verdict]) -> Measures:
    """Compare verdicts with gold, pairwise."""
    right = [verdict.policy == case.gold for case, verdict in zip(cases, verdicts, strict=True)]
    fits = [case.gold is not None for case in cases]
    return Measures(
        n=len(cases),
        turn_accuracy=_share(right),
        fitting_accuracy=_share(hit for hit, fit in zip(right, fits, strict=True) if fit),
        other_recall=_share(hit for hit, fit in zip(right, fits, strict=True) if not fit),
        ece=calibration_error([confidence(verdict) for verdict in verdicts], right),
    )


def confidence(verdict: Verdict) -> float:
    """The probability of what the verdict says."""
    return max((score for _, score in verdict.scores), default=0.0) if verdict.policy else verdict.none


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Mean gap between confidence and accuracy over bins of confidence, weighted by their size."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(_BINS)]
    for value, hit in zip(confidences, right, strict=True):
        bins[min(int(value * _BINS), _BINS - 1)].append((value, hit))
    gaps = [abs(sum(value for value, _ in bin_) - sum(hit for _, hit in bin_)) for bin_ in bins]
    return sum(gaps) / len(right) if right else math.nan


def _share(hits: Iterable[bool]) -> float:
    values = list(hits)
    return sum(values) / len(values) if values else math.nan
