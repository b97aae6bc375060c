"""What is trained on: read, drawn into batches, and free of what is evaluated."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ext_proc.core.types import Message
from tests.unit.training.corpora import write_corpus
from training import leakage
from training.batches import SHARES, draw_from
from training.corpus import CONFIGURATIONS, SYNTHETIC, Corpus, read_corpus
from training.variations import thinned


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    directory = write_corpus(tmp_path_factory.mktemp("data"))
    return read_corpus(directory / "train", directory / "ours")


def test_tasks_are_read_with_every_way_to_state_them(corpus: Corpus) -> None:
    assert set(corpus.tasks) == set(SHARES)
    task = next(task for task in corpus.tasks[SYNTHETIC] if task.group == "agents garden")
    assert "agents garden plan: plan something in the agents garden" in task.texts
    assert "agents garden: plan" in task.texts
    assert not task.catches_all
    assert sum(task.catches_all for task in corpus.tasks[SYNTHETIC]) == len(corpus.tasks[SYNTHETIC]) // 4
    assert corpus.tasks["hwu64"][0].texts[1] == "plan garden: plan in the garden"


def test_each_turn_of_a_configuration_is_a_conversation(corpus: Corpus) -> None:
    tasks = [task for task in corpus.tasks[CONFIGURATIONS] if task.group == "configurations-more/0"]
    assert [task.texts[2:4] for task in tasks][:2] == [
        ("plan the garden", "plan"),
        ("fix the garden", "fix"),
    ]
    assert [len(conversation) for conversation in tasks[0].conversations] == [1, 1, 1]
    assert tasks[0].conversations[1][-1].text == "plan my garden, number 1"
    assert [task.texts[3] for task in tasks if task.catches_all] == ["general"]
    uncovered = corpus.uncovered["configurations-more/0"]
    assert {len(conversation) for conversation in uncovered} == {3}
    assert len(uncovered) == 4


def test_what_asks_for_nothing_is_none_of_any_source(corpus: Corpus) -> None:
    every = [conversation[-1].text for conversation in (*corpus.nones, *corpus.nones_held_out)]
    assert sum("hello" in text for text in every) == 20
    assert sum("bye" in text for text in every) == 6 * 8


def test_what_a_configuration_leaves_out_is_none_of_it(corpus: Corpus) -> None:
    batch = draw_from(corpus, CONFIGURATIONS, random.Random(3))
    assert batch.idle.any()
    assert (batch.gold[batch.idle] == len(batch.policies)).all()
    uncovered = [
        row for row, messages in enumerate(batch.conversations) if messages[-1].text.endswith("0, bye")
    ]
    assert uncovered
    assert (batch.gold[uncovered] == len(batch.policies)).all()
    assert not batch.idle[uncovered].any()
    assert (batch.allowed[uncovered].sum(axis=1) > 1).any()


def test_domains_are_held_out_whole(corpus: Corpus) -> None:
    held_out: dict[str, set[bool]] = {}
    for task in corpus.tasks[SYNTHETIC]:
        held_out.setdefault(task.group, set()).add(task.held_out)
    assert all(len(values) == 1 for values in held_out.values())
    assert {True} in held_out.values()


def test_groups_that_may_both_be_right_are_known_both_ways(corpus: Corpus) -> None:
    by_group = {task.group: task for task in corpus.tasks["tasks"]}
    garden, school, kitchen = by_group["garden"], by_group["school"], by_group["kitchen"]
    assert corpus.may_both_fit(garden, school)
    assert corpus.may_both_fit(school, garden)
    assert corpus.may_both_fit(kitchen, replace(kitchen))
    assert not corpus.may_both_fit(garden, kitchen)


@pytest.mark.parametrize("source", list(SHARES))
def test_every_batch_allows_what_is_right_and_none(corpus: Corpus, source: str) -> None:
    for seed in range(20):
        batch = draw_from(corpus, source, random.Random(seed))
        rows = np.arange(len(batch.gold))
        assert batch.allowed.shape == (len(batch.conversations), len(batch.policies) + 1)
        assert batch.allowed[rows, batch.gold].all()
        assert batch.allowed[:, -1].all()
        assert all(messages[-1].role == "user" for messages in batch.conversations)


def test_none_is_right_now_and_then_and_sets_have_many_sizes(corpus: Corpus) -> None:
    batches = [draw_from(corpus, SYNTHETIC, random.Random(seed)) for seed in range(30)]
    none = np.concatenate([batch.gold == len(batch.policies) for batch in batches])
    sizes = np.concatenate([batch.allowed.sum(axis=1) - 1 for batch in batches])
    assert 0.2 < none.mean() < 0.5
    assert sizes.min() <= 2
    assert sizes.max() > 12


def test_the_same_seed_draws_the_same_batch_and_nothing_held_out(corpus: Corpus) -> None:
    first, again = (draw_from(corpus, SYNTHETIC, random.Random("7")) for _ in range(2))
    assert first.conversations == again.conversations
    assert first.policies == again.policies
    assert (first.allowed == again.allowed).all()
    hidden = {text for task in corpus.tasks[SYNTHETIC] if task.held_out for text in task.texts}
    assert not hidden & set(first.policies)
    assert set(draw_from(corpus, SYNTHETIC, random.Random(1), held_out=True).policies) <= hidden


def test_what_is_evaluated_is_left_out_even_reworded(corpus: Corpus, tmp_path: Path) -> None:
    tasks = dict(corpus.tasks)
    many = tuple((Message("user", f"an ordinary question about item {number}"),) for number in range(300))
    leaked = (Message("user", "May my landlord raise the rent, in winter?"),)
    tasks["hwu64"] = (replace(tasks["hwu64"][0], conversations=(*many, leaked)),)
    cleaned = leakage.cleaned(replace(corpus, tasks=tasks), write_corpus(tmp_path / "data") / "dev")
    assert cleaned.tasks["hwu64"][0].conversations == many


def test_many_leaks_end_the_program(corpus: Corpus, tmp_path: Path) -> None:
    dev = write_corpus(tmp_path / "data") / "dev"
    case = json.loads((dev / "cases.jsonl").read_text())
    rows = []
    for task in corpus.tasks["banking77"]:
        messages = [{"role": "user", "content": task.conversations[1][0].text}]
        rows.append(json.dumps(case | {"messages": messages}) + "\n")
    (dev / "more.jsonl").write_text("".join(rows))
    with pytest.raises(SystemExit, match="no chance"):
        leakage.cleaned(corpus, dev)


def test_no_evaluation_files_are_an_error_too(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no evaluation files"):
        leakage.cleaned(corpus, tmp_path)


def test_some_policies_cover_several_tasks_and_list_them(corpus: Corpus) -> None:
    batches = [draw_from(corpus, "hwu64", random.Random(seed)) for seed in range(20)]
    covering = [
        (text, listed)
        for batch in batches
        for (text, *_), listed in zip(batch.all_texts, batch.all_items, strict=True)
        if listed
    ]
    assert covering
    assert all(any(item in text for item in listed) for text, listed in covering)
    assert all(len(batch.items) == len(batch.policies) for batch in batches)
    plain = [batch for batch in batches if not any(batch.all_items)]
    assert 0 < len(plain) < len(batches)


def test_a_message_loses_few_words_and_no_message_all() -> None:
    long, short = (Message("user", " ".join("abcdefghij")),), (Message("user", "hello"),)
    lengths = [len(thinned(long, random.Random(seed))[-1].text.split()) for seed in range(50)]
    assert lengths.count(10) > 25
    assert 4 < min(lengths) < 10
    assert {thinned(short, random.Random(seed)) for seed in range(50)} == {short}
