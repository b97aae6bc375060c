"""Measures against values computed by hand."""

from __future__ import annotations

import pytest

from ext_proc.core.errors import Reason
from ext_proc.core.types import Verdict
from ext_proc.evaluation.cases import OTHER, Grain
from ext_proc.evaluation.measures import (
    Bin,
    Confusion,
    PolicyMeasures,
    bins_of,
    calibration_error,
    measure,
    quantile,
)
from ext_proc.evaluation.trials import Trial
from tests.unit.evaluation.cases import POLICIES, a_case, a_trial

CODE, LAW = POLICIES


def test_shares_of_all_turns_of_fitting_turns_and_of_the_rest() -> None:
    pairs = [("code", "code"), ("code", "law"), ("law", "law"), (OTHER, None), (OTHER, "code"), ("law", None)]
    found = measure([a_trial(gold, said) for gold, said in pairs])
    assert (found.n, found.turn_accuracy) == (6, 0.5)
    assert (found.in_set, found.in_set_accuracy) == (4, 0.5)
    assert (found.other_recall, found.other_precision, found.irrelevance) == (0.5, 0.5, 0.5)
    assert found.policies == (
        PolicyMeasures("code", gold=2, said=2, both=1),
        PolicyMeasures("law", gold=2, said=2, both=1),
        PolicyMeasures(OTHER, gold=2, said=2, both=1),
    )


def test_spans_and_conversations_are_right_when_all_their_turns_are() -> None:
    rows = [("a", "a1", True), ("a", "a1", True), ("a", "a2", False), ("b", "b1", True), ("b", "b2", True)]
    trials = [
        a_trial("code", "code" if right else "law", conversation=conversation, span=span)
        for conversation, span, right in rows
    ]
    found = measure([*trials, a_trial("code", "law")])
    assert (found.turn_accuracy, found.spans, found.conversations) == (4 / 6, 4, 2)
    assert (found.span_accuracy, found.conversation_accuracy) == (3 / 4, 1 / 2)


def test_actions_and_domains_are_told_apart_where_the_cases_tell() -> None:
    found = measure(
        [
            a_trial("code", "code", grain=Grain.ACTION),
            a_trial("code", "law", grain=Grain.ACTION),
            a_trial("law", "law", grain=Grain.DOMAIN),
            a_trial(OTHER, "law"),
        ]
    )
    assert (found.fqfa, found.fqca, found.irrelevance) == (0.5, 1.0, 0.0)


def test_a_share_of_nothing_is_none() -> None:
    found = measure([a_trial("code", "code")])
    assert (found.other_recall, found.other_precision, found.fqfa, found.fqca) == (None,) * 4
    assert (found.span_accuracy, found.conversation_accuracy, found.p50_ms, found.p99_ms) == (None,) * 4
    assert measure([]).turn_accuracy is None
    assert measure([]).ece is None


def test_a_policy_never_said_has_no_precision_and_one_never_wanted_no_recall() -> None:
    code, law = measure([a_trial("code", "law")]).policies
    assert (code.precision, code.recall) == (None, 0.0)
    assert (law.precision, law.recall) == (0.0, None)


def test_calibration_error_is_the_gap_between_sure_and_right_by_bins() -> None:
    assert calibration_error(bins_of([(0.8, True)] * 8 + [(0.8, False)] * 2)) == pytest.approx(0)
    assert calibration_error(bins_of([(0.9, True)] * 5 + [(0.9, False)] * 5)) == pytest.approx(0.4)
    assert calibration_error(bins_of([(1.0, True), (0.0, False)])) == 0
    # Two bins of three and one: 3/4 · |0.5 − 1/3| + 1/4 · |0.9 − 1|.
    judged = [(0.5, True), (0.5, False), (0.5, False), (0.9, True)]
    assert bins_of(judged) == (Bin(0.5, 3, 0.5, 1 / 3), Bin(0.9, 1, 0.9, 1.0))
    assert calibration_error(bins_of(judged)) == pytest.approx(0.15)


def test_confidence_is_that_of_what_was_said() -> None:
    found = measure([a_trial("code", "law", 0.75), a_trial(OTHER, None, 0.95)])
    assert found.reliability == (Bin(0.7, 1, 0.75, 0.0), Bin(0.9, 1, 0.95, 1.0))


def test_a_failure_is_never_right_counts_by_reason_and_is_no_matter_of_calibration() -> None:
    timeout = Verdict(failure=Reason.ROUTER_TIMEOUT)
    found = measure([Trial(a_case(OTHER), timeout), Trial(a_case("code"), timeout), a_trial("code", "code")])
    assert found.turn_accuracy == pytest.approx(1 / 3)
    assert (found.other_recall, found.failures) == (0.0, (("(router_timeout)", 2),))
    assert (found.ece, [bin_.n for bin_ in found.reliability]) == (0.0, [1])


def test_a_pair_that_is_confused_both_ways_is_one_pair() -> None:
    trials = [a_trial("code", "law")] * 2 + [a_trial("law", "code")] * 3 + [a_trial("law", None)]
    assert measure(trials).confusions == (Confusion(LAW, CODE, n=3, back=2),)
    assert measure(trials[1:3]).confusions == (Confusion(LAW, CODE, n=1, back=1),)
    assert measure(trials[:2]).confusions == (Confusion(CODE, LAW, n=2, back=0),)


def test_times_are_quantiles_in_milliseconds() -> None:
    trials = [Trial(a_case(), a_trial("code", "code").verdict, seconds / 1000) for seconds in range(101)]
    found = measure(trials[::-1])
    assert (found.p50_ms, found.p99_ms) == (pytest.approx(50), pytest.approx(99))
    assert quantile([1.0, 2.0], 0.5) == 1.5
    assert quantile([7.0], 0.99) == 7.0
