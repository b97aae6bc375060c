"""From vectors to probabilities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ext_proc.router.embedded.scoring import (
    Asked,
    Encoded,
    PolicySet,
    asked_of,
    blend,
    build_policy_set,
    policy_logits,
    score,
    shares,
)
from ext_proc.router.embedded.tuning import SHIPPED, read_tuning

TUNING = replace(
    read_tuning(SHIPPED), scale=10.0, token_scale=4.0, none_shift=0.0, temperature=1.0, examples_weight=1.0
)
AXES = np.eye(4, dtype=np.float32)


def at(*cosines: float) -> np.ndarray:
    return np.array(cosines, np.float32)


def said(vector: np.ndarray, none: float = 2.0, tokens: np.ndarray = AXES[:1], value: float = 0.0) -> Encoded:
    """A conversation."""
    values = np.full((len(tokens), 2), value, np.float32)
    return Encoded(vector, none, 0.0, tokens, values)


def policy(vector: np.ndarray, tokens: np.ndarray = AXES[3:], bias: float = 0.0) -> Encoded:
    return Encoded(vector, 0.0, bias, tokens, np.zeros((len(tokens), 2), np.float32))


def asked(*policies: Encoded | Asked) -> PolicySet:
    return build_policy_set([each if isinstance(each, Asked) else asked_of([each]) for each in policies])


THREE = asked(*map(policy, AXES[:3]))


def test_probabilities_sum_to_one_and_follow_the_cosines() -> None:
    scores = score(said(at(0.5, 0.3, 0.1, 0)), THREE, TUNING, None)
    assert sum(scores.per_policy) + scores.none == pytest.approx(1)
    assert scores.per_policy[0] > scores.per_policy[1] > scores.none > scores.per_policy[2]


@pytest.mark.parametrize(("none", "wins"), [(4.9, True), (5.1, False)])
def test_a_single_policy_stands_against_none(none: float, wins: bool) -> None:
    scores = score(said(at(0.5, 0, 0, 0), none), asked(policy(AXES[0])), TUNING, None)
    assert (scores.per_policy[0] > scores.none) is wins


def test_a_policys_bias_and_the_shift_of_none_count() -> None:
    even = said(at(0.5, 0.5, 0, 0), none=5.0)
    favoured = score(even, asked(policy(AXES[0], bias=1.0), policy(AXES[1])), TUNING, None)
    assert favoured.per_policy[0] > favoured.per_policy[1] == pytest.approx(favoured.none)
    shifted = score(even, asked(policy(AXES[0])), replace(TUNING, none_shift=1.0), None)
    assert shifted.none > shifted.per_policy[0]


def test_a_higher_temperature_is_less_sure_and_says_the_same() -> None:
    cold, warm = (
        score(said(at(0.5, 0.3, 0, 0)), THREE, replace(TUNING, temperature=value), None)
        for value in (1.0, 3.0)
    )
    assert max(cold.per_policy) > max(warm.per_policy) == warm.per_policy[0]


@pytest.mark.parametrize(("threshold", "wins"), [(0.0, True), (0.7, True), (0.75, False), (1.0, False)])
def test_the_threshold_is_the_share_that_the_best_policy_needs_against_none(
    threshold: float, wins: bool
) -> None:
    # One logit above none: odds of e to 1, a share of 0.731.
    scores = score(said(at(0.3, 0, 0, 0)), asked(policy(AXES[0])), TUNING, threshold)
    assert (scores.per_policy[0] > scores.none) is wins
    assert sum(scores.per_policy) + scores.none == pytest.approx(1)


def test_each_token_of_a_policy_looks_for_the_nearest_of_the_conversation() -> None:
    both = said(at(0.5, 0.5, 0, 0), tokens=AXES[:2])
    near, far = policy(AXES[0], tokens=AXES[1:2]), policy(AXES[1], tokens=AXES[2:4])
    logits = policy_logits(both, asked(near, far), TUNING)
    assert logits == pytest.approx([5 + 4, 5 + 0])


def test_tokens_weigh_what_the_policy_gives_them_and_padding_nothing() -> None:
    values = np.array([[0, 1.0], [0, 1.0 + np.log(3)]], np.float32)
    two = Encoded(AXES[0], 0.0, 0.0, AXES[:2], values)
    logits = policy_logits(said(AXES[2], tokens=AXES[1:2]), asked(two, policy(AXES[3], AXES[:4])), TUNING)
    assert logits == pytest.approx([4 * 0.75, 4 * 0.25])


def test_what_a_conversations_token_is_worth_counts() -> None:
    lower = said(AXES[0], tokens=AXES[3:], value=-0.5)
    assert policy_logits(lower, asked(policy(AXES[0])), TUNING) == pytest.approx([10 + 4 * 0.5])


def test_tokens_decide_among_the_leading_and_lift_nobody_above_them() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    many = asked(*(policy(vector, tokens=vectors[i : i + 1]) for i, vector in enumerate(vectors)))
    conversation = said(vectors[7], tokens=vectors[7:8])
    logits = policy_logits(conversation, many, TUNING)
    first = TUNING.scale * vectors @ vectors[7]
    leading = np.argsort(-first)[:16]
    rest = np.setdiff1d(np.arange(200), leading)
    assert logits.argmax() == 7
    assert logits[7] == pytest.approx(14)
    assert logits[rest].max() < logits[leading].max()
    assert np.argsort(logits[rest]).tolist() == np.argsort(first[rest]).tolist()


def test_examples_pull_a_policy_towards_them_the_more_the_more_there_are() -> None:
    plain, one, many = (
        asked_of([policy(AXES[0])], AXES[[1] * count], 1.0).vector @ AXES[1] for count in (0, 1, 9)
    )
    assert plain == 0
    assert 0 < one < many < 0.8


def test_a_message_like_a_not_example_is_pushed_away_and_others_are_not() -> None:
    against = asked_of([policy(AXES[0])], against=blend([AXES[0], AXES[1]], [1.0, 1.0])[None])
    like, unlike = said(blend([AXES[0], AXES[1]], [1.0, 1.0])), said(AXES[0])
    plain = asked(policy(AXES[0]), policy(AXES[2]))
    pushed = build_policy_set([against, asked_of([policy(AXES[2])])])
    assert policy_logits(like, pushed, TUNING)[0] < policy_logits(like, plain, TUNING)[0]
    assert policy_logits(like, pushed, TUNING)[1] == policy_logits(like, plain, TUNING)[1]
    assert policy_logits(unlike, pushed, TUNING) == pytest.approx(policy_logits(unlike, plain, TUNING))


def test_a_blend_is_a_unit_vector_even_of_opposites() -> None:
    assert np.linalg.norm(blend([AXES[0], AXES[1]], [1.0, 0.3])) == pytest.approx(1)
    assert np.isfinite(blend([AXES[0], -AXES[0]], [1.0, 1.0])).all()


def test_shares_of_large_logits_are_finite() -> None:
    assert shares(at(1000, 999, -1000)).sum() == pytest.approx(1)
