"""Export the encoder: `python -m training.export CHECKPOINT… --out ext_proc/router/embedded/weights`.

Writes the int8 ONNX model and the tokenizer, and fails when their vectors stray from those of the
float32 model in torch. No network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from tokenizers import Tokenizer

from ext_proc.core.types import Message
from ext_proc.router.embedded.encoder import Encoder as Exported
from ext_proc.router.embedded.tokens import Tokens
from ext_proc.router.embedded.tuning import MODEL_FILE, SETTINGS_FILE, TOKENIZER_FILE, Tuning, read_settings
from training import graph, samples
from training.base import base_model
from training.model import FROZEN, HEAD_GAIN, IDLE_GAIN, Encoder, load_base
from training.tokenized import Tokenized

_LOWEST_MEAN, _LOWEST = 0.99, 0.97
"""Cosines of int8 against float32 over `samples.CHECK`."""
BASE_SHARE = 0.2
_LARGEST_FILE = 30 * 1024 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", help="files that training.train wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; it holds the settings")
    parser.add_argument("--base", type=Path, help="folder of the base weights, if not the package's")
    parser.add_argument("--base-share", type=float, default=BASE_SHARE, help="of the base in the weights")
    options = parser.parse_args(arguments)
    base = options.base or base_model()
    model = load_base(base)
    trained = mean([torch.load(path, weights_only=True)["model"] for path in options.checkpoints])
    model.load_state_dict(mixed(model.state_dict(), trained, options.base_share))
    return export(model.eval(), base / TOKENIZER_FILE, options.out)


def mean(runs: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of each weight: runs that began alike end in one basin, and their mean beats each of them."""
    return {name: torch.stack([run[name] for run in runs]).mean(0) for name in runs[0]}


def mixed(base: dict[str, torch.Tensor], trained: dict[str, torch.Tensor], share: float) -> dict[str, Any]:
    """The trained weights, with a share of the base in those that it has.

    What training teaches is mostly the training tasks; the mean keeps more of what the base knew of
    others (arXiv 2109.01903).
    """
    return {
        name: torch.lerp(value, base[name], share) if name.startswith("bert.") else value
        for name, value in trained.items()
    }


def export(model: Encoder, tokens: Path, out: Path) -> int:
    """Write the model and the tokenizer beside the settings in `out`. Returns an exit status."""
    tokenizer = Tokenizer.from_file(str(tokens))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(out / TOKENIZER_FILE), pretty=False)
    tuning = read_settings(out / SETTINGS_FILE)
    tokenized = Tokenized(tuning, out / TOKENIZER_FILE)
    proto = graph.build(
        weights_of(model), shape_of(model), _input_ranges(model, _inputs(tokenized, samples.CALIBRATION))
    )
    onnx.checker.check_model(proto)
    content = proto.SerializeToString(deterministic=True)
    if len(content) > _LARGEST_FILE:
        sys.exit(f"{len(content)} bytes is more than {_LARGEST_FILE}")
    (out / MODEL_FILE).write_bytes(content)
    print(f"{MODEL_FILE}: {len(content) / 1e6:.1f} MB, sha256 {hashlib.sha256(content).hexdigest()}")
    return _check(model, _inputs(tokenized, samples.CHECK), out, tuning)


def shape_of(model: Encoder) -> graph.Shape:
    """What the graph needs to know besides the weights."""
    config = model.bert.config
    return graph.Shape(
        config.num_hidden_layers,
        config.num_attention_heads,
        config.layer_norm_eps,
        FROZEN,
        HEAD_GAIN,
        IDLE_GAIN,
    )


def weights_of(model: Encoder) -> dict[str, Any]:
    """The weights by name, those of BERT as its own library names them."""
    return {name.removeprefix("bert."): value.numpy() for name, value in model.state_dict().items()}


def _inputs(tokenized: Tokenized, texts: Sequence[str]) -> list[Tokens]:
    """Every text as a user's, as a policy, and as the user's turn after the one before it."""
    alone = [tokenized.conversation((Message("user", text),)) for text in texts]
    policies = [tokenized.policy(text) for text in texts]
    pairs = zip(texts, texts[1:], texts[2:], strict=False)
    longer = [
        tokenized.conversation((Message("user", first), Message("assistant", second), Message("user", third)))
        for first, second, third in pairs
    ]
    return [*alone, *policies, *longer]


@torch.inference_mode()
def _input_ranges(model: Encoder, inputs: Sequence[Tokens]) -> dict[str, Any]:
    """The largest absolute input per channel of each linear layer over the calibration texts."""
    ranges: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_module: Any, inputs: tuple[torch.Tensor], _output: Any) -> None:
            seen = inputs[0].abs().flatten(0, -2).amax(0)
            ranges[name] = torch.maximum(ranges[name], seen) if name in ranges else seen

        return hook

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in model.bert.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    for tokens in inputs:
        model([tokens])
    for handle in handles:
        handle.remove()
    return {name: value.numpy() for name, value in ranges.items()}


@torch.inference_mode()
def _check(model: Encoder, inputs: Sequence[Tokens], out: Path, tuning: Tuning) -> int:
    encoder = Exported(out, tuning)
    cosines = []
    for tokens in inputs:
        vectors = model([tokens]).vectors
        cosines.append(float(vectors[0].numpy() @ encoder.encode(tokens).vector))
    mean, lowest = float(np.mean(cosines)), min(cosines)
    passed = mean >= _LOWEST_MEAN and lowest >= _LOWEST
    report = {
        "texts": len(cosines),
        "cosine_mean": round(mean, 5),
        "cosine_min": round(lowest, 5),
        "ok": passed,
    }
    print(json.dumps(report))
    print(f"torch {torch.__version__}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
