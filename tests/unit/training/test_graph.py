"""The graph that the export writes computes what the model in torch computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from ext_proc.router.embedded.tokens import Tokens
from ext_proc.router.embedded.turns import Segment
from training import graph
from training.export import shape_of, weights_of
from training.model import IDLE_GAIN, Encoder

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


def texts() -> list[Tokens]:
    """Of 4, 7 and 9 tokens, of every segment."""
    rng = np.random.default_rng(2)
    return [
        Tokens(rng.integers(1, 97, length).tolist(), rng.integers(0, 4, length).tolist())
        for length in (4, 7, 9)
    ]


def both(model: Any, subject: onnxruntime.InferenceSession) -> Iterator[tuple[Any, dict[str, Any]]]:
    """What torch and the graph say of each text."""
    for tokens in texts():
        with torch.inference_mode():
            expected = model([tokens])
        inputs = {
            "input_ids": np.array([tokens.ids], np.int64),
            "segment_ids": np.array([tokens.segments], np.int64),
        }
        yield expected, dict(zip(OUTPUTS, subject.run(OUTPUTS, inputs), strict=True))


def test_float32_is_exact(model: Any) -> None:
    for expected, found in both(model, session(model, None)):
        assert found["embedding"] == pytest.approx(expected.vectors.numpy(), abs=1e-5)
        idle, bias = expected.heads.unbind(1)
        worth = IDLE_GAIN * torch.nn.functional.softplus(idle)
        assert found["heads"] == pytest.approx(torch.stack([worth, bias], 1).numpy(), abs=1e-4)


def test_int8_is_close(model: Any) -> None:
    linear = [name for name, module in model.bert.named_modules() if isinstance(module, torch.nn.Linear)]
    ranges = {name: np.full(model.bert.get_submodule(name).in_features, 3.0, np.float32) for name in linear}
    for expected, found in both(model, session(model, ranges)):
        assert (found["embedding"] * expected.vectors.numpy()).sum() > 0.99


def test_the_same_weights_give_the_same_bytes(model: Any) -> None:
    first, second = (
        graph.build(weights_of(model), shape_of(model), None).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second


def test_a_text_means_the_same_alone_and_in_a_batch(model: Any) -> None:
    with torch.inference_mode():
        together = model(texts())
        alone = [model([tokens]) for tokens in texts()]
    assert torch.cat([each.vectors for each in alone]).numpy() == pytest.approx(
        together.vectors.numpy(), abs=1e-5
    )


def test_a_policy_has_no_newest_message(model: Any) -> None:
    policy = Tokens([3, 5, 8], [int(Segment.POLICY)] * 3)
    with torch.inference_mode():
        said = model([policy])
    assert torch.isfinite(said.vectors).all()
    assert torch.isfinite(said.heads).all()
