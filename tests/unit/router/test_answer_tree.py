"""Answers as a tree of tokens: what is forced, what is asked, and what greedy decoding would write."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.router.causal_lm.tree import ROOT, Step, build_tree, greedy


def test_what_all_answers_share_is_forced_and_what_two_share_is_one_node() -> None:
    # {"route": "  is 1 2, code 3, review 4, writing 5, other 6, "} 9
    tree = build_tree([(1, 2, 3, 9), (1, 2, 3, 4, 9), (1, 2, 3, 5, 9), (1, 2, 6, 9)])
    assert tree.forced == (1, 2)
    assert (tree.tokens, tree.parents, tree.depths) == ((3, 4, 5, 6), (ROOT, 0, 0, ROOT), (0, 1, 1, 0))
    assert tree.answers == (
        (Step(ROOT, 3), Step(0, 9)),
        (Step(ROOT, 3), Step(0, 4), Step(1, 9)),
        (Step(ROOT, 3), Step(0, 5), Step(2, 9)),
        (Step(ROOT, 6), Step(3, 9)),
    )
    assert tree.ancestors(2) == [2, 0]


def test_the_last_token_of_a_lone_answer_is_asked_for() -> None:
    tree = build_tree([(1, 2, 3)])
    assert tree.forced == (1, 2)
    assert tree.answers == ((Step(ROOT, 3),),)


@pytest.mark.parametrize("answers", [[(1, 2), (1, 2)], [(1, 2), (1, 2, 3)]])
def test_answers_that_no_model_could_tell_apart_are_an_error(answers: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="beginning of another"):
        build_tree(answers)


def test_greedy_follows_the_likeliest_branch_though_a_leaf_elsewhere_is_likelier() -> None:
    tree = build_tree([(1, 7, 9), (1, 8, 9), (2, 9)])
    # Branch 1 has 0.6, split 0.3 and 0.3 below; the leaf under 2 has 0.4.
    assert greedy(tree, [(-0.51, -0.69, 0.0), (-0.51, -0.70, 0.0), (-0.92, 0.0)]) == 0


@given(st.sets(st.lists(st.integers(0, 3), max_size=5).map(lambda ids: (*ids, 9)), min_size=1, max_size=12))
def test_every_answer_is_forced_tokens_then_its_steps_each_asked_of_the_one_before(
    answers: set[tuple[int, ...]],
) -> None:
    given_answers = sorted(answers)
    tree = build_tree(given_answers)
    assert all(parent < node for node, parent in enumerate(tree.parents))
    for answer, steps in zip(given_answers, tree.answers, strict=True):
        assert (*tree.forced, *(step.token for step in steps)) == answer
        assert steps[0].parent == ROOT
        for before, step in itertools.pairwise(steps):
            assert (tree.tokens[step.parent], tree.parents[step.parent]) == (before.token, before.parent)
