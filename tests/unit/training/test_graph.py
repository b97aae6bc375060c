"""The graph that the export writes computes what the model in torch computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from training import graph

LAYERS, HEADS = 2, 4


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
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def session(model: Any, ranges: dict[str, Any] | None) -> onnxruntime.InferenceSession:
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    proto = graph.build(weights, graph.Shape(LAYERS, HEADS, model.config.layer_norm_eps), ranges)
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def cosines(model: Any, subject: onnxruntime.InferenceSession) -> list[float]:
    """Over a batch of three texts of 4, 7 and 9 tokens."""
    ids = torch.randint(1, 97, (3, 9), generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(9)[None] < torch.tensor([4, 7, 9])[:, None]).long()
    with torch.inference_mode():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    mean = (hidden * mask[..., None]).sum(1)
    expected = torch.nn.functional.normalize(mean, dim=-1).numpy()
    (found,) = subject.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    return [float(value) for value in (found * expected).sum(1)]


def test_float32_is_exact(model: Any) -> None:
    assert cosines(model, session(model, None)) == pytest.approx([1, 1, 1], abs=1e-5)


def test_int8_is_close(model: Any) -> None:
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    ranges = {name: np.full(model.get_submodule(name).in_features, 3.0, np.float32) for name in linear}
    assert min(cosines(model, session(model, ranges))) > 0.99


def test_the_same_weights_give_the_same_bytes(model: Any) -> None:
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    shape = graph.Shape(LAYERS, HEADS, 1e-12)
    first, second = (
        graph.build(weights, shape, None).SerializeToString(deterministic=True) for _ in range(2)
    )
    assert first == second
