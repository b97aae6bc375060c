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
    read_tuning(SHIPPED),
    scale=10.0,
    none_shift=0.0,
    none_growth=0.0,
    temperature=1.0,
    temperature_decline=0.0,
)
AXES = np.eye(4, dtype=np.float32)


def at(*cosines: float) -> np.ndarray:
    return np.array(cosines, np.float32)


def said(vector: np.ndarray, none: float = 2.0) -> Encoded:
    """A conversation."""
    return Encoded(vector, none, 0.0)


def policy(vector: np.ndarray, bias: float = 0.0) -> Encoded:
    return Encoded(vector, 0.0, bias)


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
    falling = score(
        said(at(0.5, 0.3, 0, 0)), THREE, replace(TUNING, temperature=6.0, temperature_decline=1.0), None
    )
    among_three = score(said(at(0.5, 0.3, 0, 0)), THREE, replace(TUNING, temperature=2.0), None)
    assert falling.per_policy == pytest.approx(among_three.per_policy)


@pytest.mark.parametrize(("threshold", "wins"), [(0.0, True), (0.7, True), (0.75, False), (1.0, False)])
def test_the_threshold_is_the_share_that_the_best_policy_needs_against_none(
    threshold: float, wins: bool
) -> None:
    # One logit above none: odds of e to 1, a share of 0.731.
    scores = score(said(at(0.3, 0, 0, 0)), asked(policy(AXES[0])), TUNING, threshold)
    assert (scores.per_policy[0] > scores.none) is wins
    assert sum(scores.per_policy) + scores.none == pytest.approx(1)


def test_among_more_policies_none_is_likelier_where_the_settings_say_so() -> None:
    tuning = replace(TUNING, none_growth=1.0)
    few, many = (
        score(said(at(0.5, 0, 0, 0)), asked(*[policy(AXES[0])] * count), tuning, None) for count in (1, 9)
    )
    assert many.none / many.per_policy[0] == pytest.approx(9 * few.none / few.per_policy[0])


def test_an_idle_message_is_none_but_for_a_policy_about_such_messages() -> None:
    thanks = said(at(0.6, 0.6, 0, 0), none=7.0)
    small_talk = asked_of([policy(AXES[1])], idle=6.5)
    scores = score(thanks, asked(policy(AXES[0]), small_talk), TUNING, None)
    assert scores.per_policy[1] > scores.none > scores.per_policy[0]
    request = said(at(0.6, 0.6, 0, 0), none=0.0)
    scores = score(request, asked(policy(AXES[0]), small_talk), TUNING, None)
    assert scores.per_policy[0] == pytest.approx(scores.per_policy[1])


def test_no_message_is_so_idle_that_a_policy_about_it_cannot_win() -> None:
    scores = score(
        said(at(0.6, 0, 0, 0), none=50.0), asked(asked_of([policy(AXES[0])], idle=8.0)), TUNING, None
    )
    assert scores.per_policy[0] > scores.none


def test_one_item_that_is_near_is_half_the_logit_and_a_long_list_is_no_help() -> None:
    conversation = said(at(0.6, 0, 0, 0.8))
    plain = policy(AXES[0])
    one = asked_of([plain], [policy(AXES[3])])
    two = asked_of([plain], [policy(AXES[3]), policy(AXES[3])])
    mixed = asked_of([plain], [policy(AXES[3]), policy(-AXES[3])])
    logits = policy_logits(conversation, asked(plain, one, two, mixed), TUNING)
    assert logits == pytest.approx([6, 7, 7, 7 - np.log(2) / 2], abs=1e-3)


def test_items_count_for_their_own_policy_whatever_stands_beside_it() -> None:
    listing = asked_of([policy(AXES[0])], [policy(AXES[2]), policy(AXES[3])])
    conversation = said(at(0.1, 0.2, 0.3, 0.9))
    alone = policy_logits(conversation, asked(listing), TUNING)
    between = policy_logits(conversation, asked(policy(AXES[1]), listing, policy(AXES[3])), TUNING)
    assert between == pytest.approx([2, alone[0], 9])


def test_items_decide_among_those_that_lead_without() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    plain = asked(*map(policy, vectors))
    listing = asked(*(asked_of([policy(vector)], [policy(vectors[7])]) for vector in vectors))
    conversation = said(vectors[7])
    first, logits = (policy_logits(conversation, each, TUNING) for each in (plain, listing))
    leading = np.argsort(-first)[:64]
    rest = np.setdiff1d(np.arange(300), leading)
    assert logits[leading] == pytest.approx((first[leading] + 10) / 2, abs=1e-3)
    assert logits[rest] == pytest.approx(first[rest])


def test_examples_draw_what_is_nearer_to_them_and_push_nothing_away() -> None:
    taught = asked_of([policy(AXES[0])], (), AXES[[1, 1]])
    like, unlike = said(at(0.2, 0.9, 0, 0)), said(at(0.9, 0.2, 0, 0))
    plain = asked(policy(AXES[0]))
    assert policy_logits(like, plain, TUNING) == pytest.approx([2])
    assert policy_logits(like, asked(taught), TUNING) == pytest.approx([5.5])
    assert policy_logits(unlike, asked(taught), TUNING) == policy_logits(unlike, plain, TUNING)


def test_a_message_like_a_not_example_is_pushed_away_and_others_are_not() -> None:
    against = asked_of([policy(AXES[0])], against=blend([AXES[0], AXES[1]])[None])
    like, unlike = said(blend([AXES[0], AXES[1]])), said(AXES[0])
    plain = asked(policy(AXES[0]), policy(AXES[2]))
    pushed = build_policy_set([against, asked_of([policy(AXES[2])])])
    assert policy_logits(like, pushed, TUNING)[0] < policy_logits(like, plain, TUNING)[0]
    assert policy_logits(like, pushed, TUNING)[1] == policy_logits(like, plain, TUNING)[1]
    assert policy_logits(unlike, pushed, TUNING) == pytest.approx(policy_logits(unlike, plain, TUNING))


def test_a_blend_is_a_unit_vector_even_of_opposites() -> None:
    assert np.linalg.norm(blend([AXES[0], AXES[1]])) == pytest.approx(1)
    assert np.isfinite(blend([AXES[0], -AXES[0]])).all()


def test_shares_of_large_logits_are_finite() -> None:
    assert shares(at(1000, 999, -1000)).sum() == pytest.approx(1)
