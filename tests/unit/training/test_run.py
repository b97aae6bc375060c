"""The whole way from the data to measured weights, on a tiny encoder and a tiny corpus."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from ext_proc.router.embedded.tuning import MODEL_FILE, SETTINGS_FILE, SHIPPED, TOKENIZER_FILE, read_tuning
from tests.unit.training.corpora import write_corpus
from training import export, run
from training.model import FROZEN


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(4)
    config = transformers.BertConfig(
        vocab_size=30522,
        hidden_size=64,
        num_hidden_layers=FROZEN + 1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "base")
    shutil.copy(SHIPPED / TOKENIZER_FILE, tmp_path / "base")
    return tmp_path / "base"


def test_two_steps_are_trained_exported_calibrated_and_measured(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    datasets, work, weights = write_corpus(tmp_path / "data"), tmp_path / "work", tmp_path / "weights"
    weights.mkdir()
    settings = json.loads((SHIPPED / SETTINGS_FILE).read_text()) | {"none_shift": 99.0}
    (weights / SETTINGS_FILE).write_text(json.dumps(settings))
    command = [str(datasets), "--work", str(work), "--weights", str(weights), "--base", str(base)]
    assert run.main([*command, "--try-out", "cases"]) == 0
    assert (weights / MODEL_FILE).stat().st_size > 1_000_000
    assert read_tuning(weights).none_shift != 99
    assert "| cases | 1 |" in capfd.readouterr().out
    # Once more finds both runs' checkpoints and has nothing left to train.
    assert run.main([*command, "--try-out", "cases"]) == 0
    assert capfd.readouterr().out.count("going on after step 2") == 2
    first, second = (torch.load(path, weights_only=True)["model"] for path in work.glob("*/checkpoint.pt"))
    assert not torch.equal(first["segments"], second["segments"])
    assert torch.allclose(export.mean([first, second])["none"], (first["none"] + second["none"]) / 2)
