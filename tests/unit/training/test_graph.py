"""The graph that the export writes computes what the model in torch computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from ext_proc.router.embedded.tokens import Tokens
from training import graph
from training.export import shape_of, weights_of
from training.model import Encoder

LAYERS, HEADS = 3, 4
OUTPUTS = ("embedding", "heads")


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=97,
        hidden_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=128,
        max_position_embeddings=32,
    )
    subject = Encoder(transformers.BertModel(config, add_pooling_layer=False))
    for name, value in subject.named_parameters():
        if not name.startswith("bert."):
            torch.nn.init.normal_(value, std=0.3)
    return subject.eval()


def session(model: Any, ranges: dict[str, Any] | None) -> onnxruntime.InferenceSession:
    proto = graph.build(weights_of(model), shape_of(model), ranges)
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def both(model: Any, subject: onnxruntime.InferenceSession) -> tuple[Any, dict[str, Any]]:
    """What torch and the graph say of a batch of three texts of 4, 7 and 9 tokens."""
    rng = np.random.default_rng(2)
    batch = [
        Tokens(rng.integers(1, 97, length).tolist(), rng.integers(0, 4, length).tolist())
        for length in (4, 7, 9)
    ]
    inputs = {name: np.zeros((3, 9), np.int64) for name in ("input_ids", "segment_ids", "attention_mask")}
    for row, tokens in enumerate(batch):
        inputs["input_ids"][row, : len(tokens.ids)] = tokens.ids
        inputs["segment_ids"][row, : len(tokens.ids)] = tokens.segments
        inputs["attention_mask"][row, : len(tokens.ids)] = 1
    with torch.inference_mode():
        expected = model(batch)
    return expected, dict(zip(OUTPUTS, subject.run(OUTPUTS, inputs), strict=True))


def test_float32_is_exact(model: Any) -> None:
    expected, found = both(model, session(model, None))
    assert found["embedding"] == pytest.approx(expected.vectors.numpy(), abs=1e-5)
    assert found["heads"] == pytest.approx(expected.heads.numpy(), abs=1e-4)


def test_int8_is_close(model: Any) -> None:
    linear = [name for name, module in model.bert.named_modules() if isinstance(module, torch.nn.Linear)]
    ranges = {name: np.full(model.bert.get_submodule(name).in_features, 3.0, np.float32) for name in linear}
    expected, found = both(model, session(model, ranges))
    assert (found["embedding"] * expected.vectors.numpy()).sum(1).min() > 0.99


def test_the_same_weights_give_the_same_bytes(model: Any) -> None:
    first, second = (
        graph.build(weights_of(model), shape_of(model), None).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second


def test_a_text_means_the_same_alone_and_in_a_batch(model: Any) -> None:
    expected, _ = both(model, session(model, None))
    rng = np.random.default_rng(2)
    first = Tokens(rng.integers(1, 97, 4).tolist(), rng.integers(0, 4, 4).tolist())
    with torch.inference_mode():
        alone = model([first])
    assert alone.vectors[0].numpy() == pytest.approx(expected.vectors[0].numpy(), abs=1e-5)
