"""Two deciders on the same cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ext_proc.evaluation.cases import OTHER, read_cases
from ext_proc.evaluation.compare import as_json, as_text, compare
from ext_proc.evaluation.results import save
from ext_proc.evaluation.trials import Trial, recorded
from tests.unit.evaluation.cases import a_case, a_trial

NAMES = ("old", "new")


def test_what_flips_is_listed_the_worse_first() -> None:
    rows = [("one", "code", "code", "law"), ("two", "code", "law", "code"), ("three", OTHER, "law", "code")]
    rows.append(("four", "law", "law", "law"))
    first = [a_trial(gold, before, text=text) for text, gold, before, _ in rows]
    second = [a_trial(gold, after, text=text) for text, gold, _, after in rows]
    found = compare(NAMES, first, second)
    assert [(pair.first.case.id, pair.gain) for pair in found.flipped] == [
        ("about one", -1),
        ("about two", 1),
        ("about three", 0),
    ]
    assert found.agreement == 0.25
    assert found.difference is not None
    assert found.difference.value == 0
    assert as_json(found)["turn_accuracy"] == [0.5, 0.5]
    text = as_text(found, 2)
    assert "no difference is shown: B − A = +0.0 points" in text
    assert "worse  about one: code 1.00 → law 1.00, gold code: “one”" in text
    assert "and 1 more" in text


def test_few_cases_say_that_they_show_only_large_differences() -> None:
    def said(turns: int) -> str:
        trials = [a_trial("code", "code", text=f"turn {number}") for number in range(turns)]
        return as_text(compare(NAMES, trials, trials), 0)

    assert "13 turns show only large differences, here of some 23 points: label more" in said(13)
    assert "label more" not in said(200)


def test_only_cases_that_both_have_count_and_equal_ones_pair_up_in_order() -> None:
    twice = [a_trial("code", "code"), a_trial("code", "law")]
    gone, new = a_trial("code", "code", text="gone"), a_trial("law", "law", text="new")
    found = compare(NAMES, [*twice, gone], [*twice, new])
    assert [(pair.first.said, pair.second.said) for pair in found.pairs] == [("code", "code"), ("law", "law")]


def test_without_labels_there_is_agreement_and_nothing_else() -> None:
    first, second = a_trial(None, "code"), a_trial(None, "law")
    found = compare(NAMES, [first], [second])
    assert (found.first, found.second, found.difference, found.agreement) == (None, None, None, 0.0)
    assert "which nobody labelled" in as_text(found, 1)
    assert as_json(found)["difference"] is None


def test_what_was_saved_compares_as_what_was_measured(tmp_path: Path) -> None:
    cases = [a_case("code", conversation="c", span="s"), a_case(OTHER, "bye"), a_case(None, "so?")]
    trials = [Trial(case, a_trial("code", "law", 0.75).verdict, 0.002) for case in cases]
    path = tmp_path / "saved.jsonl"
    save(trials, path)
    file = read_cases(path, labelled=False)
    assert file.problems == ()
    expected = [Trial(replace(trial.case, decided=trial.verdict), trial.verdict) for trial in trials]
    assert recorded(file.cases) == expected
    assert len(compare(NAMES, recorded(file.cases), trials).pairs) == 3


@pytest.mark.parametrize("most", [0, 5])
def test_no_flip_is_no_news(most: int) -> None:
    trials = [a_trial("code", "code")]
    assert "0 of 1 decisions flip" in as_text(compare(NAMES, trials, trials), most)
