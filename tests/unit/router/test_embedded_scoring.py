"""From vectors to probabilities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ext_proc.router.embedded.scoring import blend, build_policy_set, score
from ext_proc.router.embedded.tuning import SHIPPED, read_tuning

TUNING = replace(read_tuning(SHIPPED), temperature=0.05, none_point=0.2, topic_slope=0.5, topic_overlap=0.4)
AXES = np.eye(4, dtype=np.float32)
NO_TOPICS = np.zeros((0, 4), np.float32)


def at(*cosines: float) -> np.ndarray:
    return np.array(cosines, np.float32)


def test_probabilities_sum_to_one_and_follow_the_cosines() -> None:
    scores = score(at(0.5, 0.3, 0.1, 0), build_policy_set(AXES[:3], NO_TOPICS, TUNING), TUNING, None)
    assert sum(scores.per_policy) + scores.none == pytest.approx(1)
    assert scores.per_policy[0] > scores.per_policy[1] > scores.none > scores.per_policy[2]


@pytest.mark.parametrize(("cosine", "wins"), [(0.21, True), (0.19, False)])
def test_a_single_policy_stands_against_none(cosine: float, wins: bool) -> None:
    scores = score(at(cosine, 0, 0, 0), build_policy_set(AXES[:1], NO_TOPICS, TUNING), TUNING, None)
    assert (scores.per_policy[0] > scores.none) is wins


def test_a_topic_elsewhere_speaks_for_none_unless_a_policy_covers_it() -> None:
    conversation = at(0.4, 0.6, 0, 0)
    elsewhere = build_policy_set(AXES[:1], AXES[1:2], TUNING)
    covered = build_policy_set(AXES[:2], AXES[1:2], TUNING)
    assert score(conversation, elsewhere, TUNING, None).none > 0.5
    assert score(conversation, covered, TUNING, None).per_policy[1] > 0.9


@pytest.mark.parametrize(("threshold", "wins"), [(0.0, True), (0.7, True), (0.75, False), (1.0, False)])
def test_the_threshold_is_the_share_that_the_best_policy_needs_against_none(
    threshold: float, wins: bool
) -> None:
    asked = build_policy_set(AXES[:2], NO_TOPICS, TUNING)
    conversation = at(0.25, 0.0, 0, 0)
    plain = score(conversation, asked, TUNING, None)
    share = plain.per_policy[0] / (plain.per_policy[0] + plain.none)
    assert 0.7 < share < 0.75
    scores = score(conversation, asked, TUNING, threshold)
    assert (scores.per_policy[0] > scores.none) is wins


def test_a_threshold_of_one_half_changes_nothing() -> None:
    asked = build_policy_set(AXES, NO_TOPICS, TUNING)
    conversation = at(0.5, 0.1, 0.2, 0.3)
    assert score(conversation, asked, TUNING, 0.5) == score(conversation, asked, TUNING, None)


def test_a_blend_is_a_unit_vector_even_of_opposites() -> None:
    assert np.linalg.norm(blend([AXES[0], AXES[1]], [1.0, 0.3])) == pytest.approx(1)
    assert np.isfinite(blend([AXES[0], -AXES[0]], [1.0, 1.0])).all()
