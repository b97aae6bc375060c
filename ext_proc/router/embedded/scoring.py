"""From vectors to probabilities. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ext_proc.core.types import Scores
from ext_proc.router.embedded.tuning import Tuning

Vectors = NDArray[np.float32]
_EDGE = 1e-9
"""Thresholds of 0 and 1 mean this much more than 0 and less than 1, so that their odds are finite."""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The policies of one question: a row each, and the rows of the topics that none of them covers."""

    policies: Vectors
    topics: Vectors


def build_policy_set(policies: Vectors, topics: Vectors, tuning: Tuning) -> PolicySet:
    """Set the topics against the policies: what a policy covers says nothing for "none of them"."""
    nearest = (topics @ policies.T).max(axis=1)
    return PolicySet(policies, topics[nearest < tuning.topic_overlap])


def blend(vectors: Sequence[Vectors], weights: Sequence[float]) -> Vectors:
    """The weighted mean of unit vectors, as a unit vector."""
    mean = np.average(np.stack(vectors), axis=0, weights=weights)
    return (mean / max(float(np.linalg.norm(mean)), _EDGE)).astype(np.float32)


def score(conversation: Vectors, asked: PolicySet, tuning: Tuning, threshold: float | None) -> Scores:
    """Softmax over the policies and "none of them".

    Units: `threshold` is a probability, p(best) / (p(best) + p(none)), below which none wins. None
    leaves the weights' own point, which is 0.5.
    """
    none = tuning.none_point
    if len(asked.topics):
        none += tuning.topic_slope * max(0.0, float((asked.topics @ conversation).max()))
    logits = np.append(asked.policies @ conversation, none).astype(np.float64) / tuning.temperature
    if threshold is not None:
        share = min(max(threshold, _EDGE), 1 - _EDGE)
        logits[-1] += math.log(share / (1 - share))
    odds = np.exp(logits - logits.max())
    *per_policy, rest = (odds / odds.sum()).tolist()
    return Scores(tuple(per_policy), rest)
