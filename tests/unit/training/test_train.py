"""Training itself, on a tiny encoder and a tiny corpus. Needs the `training` extra."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from ext_proc.router.embedded.tuning import SHIPPED, TOKENIZER_FILE
from tests.unit.training.corpora import write_corpus
from training.batches import draw_from
from training.calibrate import Answers, fit
from training.corpus import Corpus, read_corpus
from training.model import FROZEN, Encoder
from training.tokenized import Tokenized
from training.train import CHECKPOINT, LIMITS, Plan, loss_of, train

PLAN = Plan((2, 2), landing=1, rate=1e-3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return read_corpus(write_corpus(tmp_path_factory.mktemp("data")) / "train")


def a_model() -> Encoder:
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=FROZEN + 1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
    )
    return Encoder(transformers.BertModel(config, add_pooling_layer=False))


def weights(model: Encoder) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_step_lowers_the_loss_of_its_batch_and_leaves_the_lower_layers(corpus: Corpus) -> None:
    model = a_model()
    before = weights(model)
    batch = draw_from(corpus, "synthetic", random.Random(1))
    tokenized = Tokenized(LIMITS, SHIPPED / TOKENIZER_FILE)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    first = loss_of(model, batch, tokenized)
    first.backward()
    optimiser.step()
    assert loss_of(model, batch, tokenized) < first
    after = weights(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(("bert.embeddings", "bert.encoder.layer.0.")) for name in changed)
    assert {"segments", "pool_gate", "idle.weight", "bias_out.weight", "none"} <= changed
    assert any(name.startswith(f"bert.encoder.layer.{FROZEN}.") for name in changed)


def test_a_run_that_was_cut_off_ends_as_if_it_had_not(corpus: Corpus, tmp_path: Path) -> None:
    whole, half, rest = tmp_path / "whole", tmp_path / "parts", a_model()
    whole.mkdir()
    half.mkdir()
    expected = weights(train(corpus, whole, PLAN, a_model()))
    train(corpus, half, PLAN, a_model(), until=3)
    assert torch.load(half / CHECKPOINT, weights_only=True)["step"] == 3
    found = weights(train(corpus, half, PLAN, rest))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_calibration_finds_how_none_grows_with_the_policies_and_where_it_stands() -> None:
    rng = np.random.default_rng(5)
    logits, gold = [], []
    for _ in range(2000):
        policies = rng.normal(0, 2.0, rng.integers(2, 40))
        none = 1.5 * np.log(len(policies)) + rng.logistic()
        gold.append(len(policies) if none > policies.max() else int(policies.argmax()))
        # The encoder's own logit of none knows nothing of their number.
        logits.append(np.append(policies, 4.0))
    answers = Answers(logits, gold)
    fitted = fit([answers], [answers])
    assert fitted.none_growth == pytest.approx(1.5, abs=0.5)
    moved = [replace(fitted, none_shift=fitted.none_shift + by) for by in (-1, 1)]
    assert answers.loss_of_none(fitted) < min(map(answers.loss_of_none, moved))


def test_calibration_finds_the_temperature() -> None:
    rng = np.random.default_rng(5)
    rows = [rng.normal(0, 1.0, 5) for _ in range(600)]
    gold = [int(rng.choice(5, p=np.exp(row) / np.exp(row).sum())) for row in rows]
    answers = Answers([2.0 * row for row in rows], gold)
    fitted = fit([answers], [answers])
    moved = [replace(fitted, temperature=fitted.temperature * by) for by in (0.8, 1.25)]
    assert answers.loss(fitted) < min(map(answers.loss, moved))
    assert fitted.temperature_among(4) == pytest.approx(2, abs=0.4)


def test_calibration_finds_how_the_temperature_falls_with_the_policies() -> None:
    rng = np.random.default_rng(6)
    logits, gold = [], []
    for policies in (2, 32) * 400:
        row = rng.normal(0, 2.0, policies + 1)
        gold.append(int(rng.choice(policies + 1, p=np.exp(row) / np.exp(row).sum())))
        logits.append(row * (4.0 if policies == 2 else 1.0))
    answers = Answers(logits, gold)
    fitted = fit([answers], [answers])
    # The point of none is another beside a quarter of the logits, so the decline is only nearly 0.5.
    assert fitted.temperature_decline == pytest.approx(0.5, abs=0.2)
    level = replace(fitted, temperature=fitted.temperature_among(8), temperature_decline=0.0)
    assert answers.loss(fitted) < answers.loss(level)
