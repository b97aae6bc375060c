"""From vectors to probabilities. Pure.

A policy's logit has two parts. Its vector against the conversation's says what both are about. Then
each of its tokens looks for the conversation's token nearest to it: so "refund a booking" is told from
"make a booking" (late interaction, arXiv 2004.12832). The second is worked out for the few policies
that lead by the first, so that a thousand policies cost no more than ten.
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
_LEADING = 16


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoder says of one text.

    Shapes: `vector` [hidden] and `tokens` [tokens, width], of length 1 each. Of a conversation: `none`
    is the logit of "none of them", `values[:, 0]` what is added to a cosine with its tokens. Of a
    policy: `bias` is added to its logit, `values[:, 1]` are the logits of its tokens' weights.
    """

    vector: Vectors
    none: float
    bias: float
    tokens: Vectors
    values: Vectors


@dataclass(frozen=True, slots=True)
class Asked:
    """One policy, ready to be put into a set.

    Shapes: `vector` [hidden], `tokens` [tokens, width], `weights` [tokens], summing to 1; `against`
    [not-examples, hidden].
    """

    vector: Vectors
    bias: float
    tokens: Vectors
    weights: Vectors
    against: Vectors


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The policies of one question.

    Shapes: `vectors` [policies, hidden]; `biases` [policies]; `tokens` [policies, longest, width] and
    `weights` [policies, longest], 0 where a policy has fewer tokens; `against` [not-examples, hidden],
    those of policy `against_of`.
    """

    vectors: Vectors
    biases: Vectors
    tokens: Vectors
    weights: Vectors
    against: Vectors
    against_of: NDArray[np.intp]


def asked_of(
    phrased: Sequence[Encoded],
    examples: Vectors | None = None,
    examples_weight: float = 0.0,
    against: Vectors | None = None,
) -> Asked:
    """A policy from its phrasings, of which the first one's tokens count, and the vectors of examples.

    Shapes: `examples` and `against` [messages, hidden].
    """
    vector = blend([each.vector for each in phrased], [1.0] * len(phrased))
    if examples is not None and len(examples):
        pull = examples_weight * len(examples) / (len(examples) + 1)
        vector = blend([vector, examples.mean(axis=0)], [1.0, pull])
    first = phrased[0]
    return Asked(
        vector,
        sum(each.bias for each in phrased) / len(phrased),
        first.tokens,
        shares(first.values[:, 1]),
        np.zeros((0, len(vector)), np.float32) if against is None else against,
    )


def build_policy_set(policies: Sequence[Asked]) -> PolicySet:
    """Put policies, at least one, side by side."""
    longest = max(len(policy.tokens) for policy in policies)
    width = policies[0].tokens.shape[1]
    tokens = np.zeros((len(policies), longest, width), np.float32)
    weights = np.zeros((len(policies), longest), np.float32)
    for row, policy in enumerate(policies):
        tokens[row, : len(policy.tokens)] = policy.tokens
        weights[row, : len(policy.tokens)] = policy.weights
    return PolicySet(
        np.stack([policy.vector for policy in policies]),
        np.array([policy.bias for policy in policies], np.float32),
        tokens,
        weights,
        np.concatenate([policy.against for policy in policies]),
        np.repeat(np.arange(len(policies)), [len(policy.against) for policy in policies]),
    )


def blend(vectors: Sequence[Vectors], weights: Sequence[float]) -> Vectors:
    """The weighted mean of unit vectors, as a unit vector."""
    mean = np.average(np.stack(vectors), axis=0, weights=weights)
    return (mean / max(float(np.linalg.norm(mean)), _EDGE)).astype(np.float32)


def shares(logits: Vectors) -> Vectors:
    """Softmax."""
    odds = np.exp(logits - logits.max())
    found: Vectors = odds / odds.sum()
    return found


def score(conversation: Encoded, asked: PolicySet, tuning: Tuning, threshold: float | None) -> Scores:
    """Softmax over the policies and "none of them".

    Units: `threshold` is a probability, p(best) / (p(best) + p(none)), below which none wins. None
    leaves the weights' own point, which is 0.5.
    """
    logits = np.append(policy_logits(conversation, asked, tuning), conversation.none + tuning.none_shift)
    logits /= tuning.temperature
    if threshold is not None:
        share = min(max(threshold, _EDGE), 1 - _EDGE)
        logits[-1] += math.log(share / (1 - share))
    *per_policy, rest = shares(logits).tolist()
    return Scores(tuple(per_policy), rest)


def policy_logits(conversation: Encoded, asked: PolicySet, tuning: Tuning) -> NDArray[np.float64]:
    """The logits of the policies, before the temperature. Shapes: [policies]."""
    cosines = _pushed(asked.vectors @ conversation.vector, conversation.vector, asked)
    logits = (tuning.scale * cosines + asked.biases).astype(np.float64)
    leading = np.argpartition(-logits, _LEADING)[:_LEADING] if len(logits) > _LEADING else slice(None)
    near = _nearest(conversation, asked.tokens[leading], asked.weights[leading])
    added = np.full(len(logits), near.min())
    added[leading] = near
    return logits + tuning.token_scale * added


def _pushed(cosines: Vectors, conversation: Vectors, asked: PolicySet) -> Vectors:
    """A conversation nearer to a not-example than to the policy is as much farther from the policy."""
    if not len(asked.against):
        return cosines
    nearer = asked.against @ conversation - cosines[asked.against_of]
    excess = np.zeros_like(cosines)
    np.maximum.at(excess, asked.against_of, nearer)
    return cosines - excess


def _nearest(conversation: Encoded, tokens: Vectors, weights: Vectors) -> Vectors:
    """How near the policies' tokens come to the conversation's, on average. Shapes: [policies]."""
    policies, longest, width = tokens.shape
    cosines = tokens.reshape(-1, width) @ conversation.tokens.T + conversation.values[:, 0]
    found: Vectors = (cosines.max(axis=1).reshape(policies, longest) * weights).sum(axis=1)
    return found
