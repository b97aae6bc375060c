"""From vectors to probabilities. Pure.

A policy's logit is how near its vector comes to the conversation's. A description that lists what it
covers has a vector for each item besides, and half the logit is how near the nearest of them comes: the
mean of "flights, visas and luggage" is near to none of them. Examples of a policy's messages count like
items, where they are nearer than the rest. Both are worked out for the few policies that lead without,
so that a thousand policies cost no more than ten.
"""

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
_LEADING = 64
_MOST_IDLE = 8.0
"""More than that is no surer, and would outweigh a policy that is about such messages."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoder says of one text.

    Shapes: `vector` [hidden], of length 1. `none` is added to the logit of "none of them": much where a
    conversation's newest message asks for nothing. `bias` is added to the logit of a policy.
    """

    vector: Vectors
    none: float
    bias: float


@dataclass(frozen=True, slots=True)
class Asked:
    """One policy, ready to be put into a set.

    Shapes: `vector` [hidden]; `items` [items, hidden]; `examples` and `against` [messages, hidden].
    `idle` is what its name would say of "none of them" as a user's message: much for "small talk", "thanks".
    """

    vector: Vectors
    bias: float
    idle: float
    items: Vectors
    examples: Vectors
    against: Vectors


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The policies of one question.

    Shapes: `vectors` [policies, hidden]; `biases` and `idle` [policies]; `items` [items, hidden] and
    `examples` [messages, hidden] for each policy; `against` [not-examples, hidden], those of policy
    `against_of`.
    """

    vectors: Vectors
    biases: Vectors
    idle: Vectors
    items: tuple[Vectors, ...]
    examples: tuple[Vectors, ...]
    against: Vectors
    against_of: NDArray[np.intp]


def asked_of(
    phrased: Sequence[Encoded],
    items: Sequence[Encoded] = (),
    examples: Vectors | None = None,
    against: Vectors | None = None,
    idle: float = 0.0,
) -> Asked:
    """A policy from its phrasings, the items that it lists, the vectors of examples, and how idle it is.

    Shapes: `examples` and `against` [messages, hidden].
    """
    vector = blend([each.vector for each in phrased])
    nothing = np.zeros((0, len(vector)), np.float32)
    return Asked(
        vector,
        sum(each.bias for each in phrased) / len(phrased),
        idle,
        np.stack([each.vector for each in items]) if items else nothing,
        nothing if examples is None else examples,
        nothing if against is None else against,
    )


def build_policy_set(policies: Sequence[Asked]) -> PolicySet:
    """Put policies, at least one, side by side."""
    return PolicySet(
        np.stack([policy.vector for policy in policies]),
        np.array([policy.bias for policy in policies], np.float32),
        np.array([policy.idle for policy in policies], np.float32),
        tuple(policy.items for policy in policies),
        tuple(policy.examples for policy in policies),
        np.concatenate([policy.against for policy in policies]),
        np.repeat(np.arange(len(policies)), [len(policy.against) for policy in policies]),
    )


def blend(vectors: Sequence[Vectors]) -> Vectors:
    """The mean of unit vectors, as a unit vector."""
    mean: Vectors = np.stack(vectors).mean(axis=0)
    found: Vectors = mean / max(float(np.linalg.norm(mean)), _EDGE)
    return found


def shares(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax."""
    odds = np.exp(logits - logits.max())
    found: NDArray[np.float64] = odds / odds.sum()
    return found


def score(conversation: Encoded, asked: PolicySet, tuning: Tuning, threshold: float | None) -> Scores:
    """Softmax over the policies and "none of them".

    Units: `threshold` is a probability, p(best) / (p(best) + p(none)), below which none wins. None
    leaves the weights' own point, which is 0.5.
    """
    logits = policy_logits(conversation, asked, tuning)
    none = idleness(conversation) + tuning.none_shift + tuning.none_growth * math.log(len(logits))
    logits = np.append(logits, none) / tuning.temperature_among(len(logits))
    if threshold is not None:
        share = min(max(threshold, _EDGE), 1 - _EDGE)
        logits[-1] += math.log(share / (1 - share))
    *per_policy, rest = shares(logits).tolist()
    return Scores(tuple(per_policy), rest)


def idleness(conversation: Encoded) -> float:
    """What is added to the logit of none because the newest message asks for nothing."""
    return min(conversation.none, _MOST_IDLE)


def policy_logits(conversation: Encoded, asked: PolicySet, tuning: Tuning) -> NDArray[np.float64]:
    """The logits of the policies, before the temperature. Shapes: [policies]."""
    logits = tuning.scale * (asked.vectors @ conversation.vector)
    if len(logits) > _LEADING:
        leading = np.argpartition(-logits, _LEADING)[:_LEADING].tolist()
    else:
        leading = range(len(logits))
    if listing := [policy for policy in leading if len(asked.items[policy])]:
        near = _nearest([asked.items[policy] for policy in listing], conversation.vector, tuning.scale)
        logits[listing] = (logits[listing] + near) / 2
    if taught := [policy for policy in leading if len(asked.examples[policy])]:
        near = _nearest([asked.examples[policy] for policy in taught], conversation.vector, tuning.scale)
        logits[taught] = np.maximum(logits[taught], (logits[taught] + near) / 2)
    cosines = _pushed(logits / tuning.scale, conversation.vector, asked)
    # An idle message may be what a policy is for.
    own = np.minimum(asked.idle, idleness(conversation))
    return (tuning.scale * cosines + asked.biases + own).astype(np.float64)


def _pushed(cosines: Vectors, conversation: Vectors, asked: PolicySet) -> Vectors:
    """A conversation nearer to a not-example than to the policy is as much farther from the policy."""
    if not len(asked.against):
        return cosines
    nearer = asked.against @ conversation - cosines[asked.against_of]
    excess = np.zeros_like(cosines)
    np.maximum.at(excess, asked.against_of, nearer)
    return cosines - excess


def _nearest(items: Sequence[Vectors], conversation: Vectors, scale: float) -> Vectors:
    """The logit of the nearest of each policy's, nearly: log mean exp, so that many are no help by number.

    Shapes: `items` one [items, hidden] per policy, none of them empty; the result [policies].
    """
    counts = np.array([len(each) for each in items])
    starts = np.cumsum(counts) - counts
    logits = scale * (np.concatenate(items) @ conversation)
    highest = np.maximum.reduceat(logits, starts)
    odds = np.add.reduceat(np.exp(logits - np.repeat(highest, counts)), starts)
    found: Vectors = highest + np.log(odds / counts)
    return found
