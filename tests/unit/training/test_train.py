"""Training itself, on a tiny encoder and a tiny corpus. Needs the `training` extra."""

from __future__ import annotations

import random
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

PLAN = Plan(steps=4, rate=1e-3)


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
    assert {"segments", "pool_gate", "token_out.weight", "head_out.weight"} <= changed
    assert any(name.startswith(f"bert.encoder.layer.{FROZEN}.") for name in changed)


def test_a_run_that_was_cut_off_ends_as_if_it_had_not(corpus: Corpus, tmp_path: Path) -> None:
    whole, half, rest = tmp_path / "whole", tmp_path / "parts", a_model()
    whole.mkdir()
    half.mkdir()
    expected = weights(train(corpus, whole, PLAN, a_model()))
    train(corpus, half, PLAN, a_model(), until=2)
    assert torch.load(half / CHECKPOINT, weights_only=True)["step"] == 2
    found = weights(train(corpus, half, PLAN, rest))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_calibration_finds_the_shift_and_the_temperature() -> None:
    rng = np.random.default_rng(5)
    logits, gold = [], []
    for _ in range(600):
        row = rng.normal(0, 1.0, 5)
        odds = np.exp(row - row.max())
        gold.append(int(rng.choice(5, p=odds / odds.sum())))
        # Three too high for none, and twice as sure as is right.
        logits.append(2.0 * (row + np.array([0, 0, 0, 0, 1.5])))
    shift, temperature = fit([Answers(logits, gold)])
    assert shift == pytest.approx(-3, abs=0.8)
    assert temperature == pytest.approx(2, abs=0.4)
