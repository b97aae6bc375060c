"""A BERT encoder's weights as an ONNX graph, node by node, in float32 or int8.

Written by hand, because what an exporter emits changes with its version, and because the fast graph is
not the one that fusing tools aim at: onnxruntime 1.32's SkipLayerNormalization takes five times its parts
(one core with VNNI, 64 tokens: 4.4 ms with it, 2.9 ms without).

Quantisation: weights to 7 bits per output channel, because without VNNI x86 adds pairs of 8-bit
products in 16 bits, which overflows; activations to 8 bits, dynamically. Two things keep the vectors
close: outlier channels of the input are scaled into the weights (SmoothQuant, arXiv 2211.10438), and
the widest activation, after GELU, is quantised row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ext_proc.router.embedded.turns import Segment

Array = NDArray[Any]

_CONTRIB = "com.microsoft"
_NEWEST = int(Segment.NEWEST)
_WEIGHT_LIMIT = 64
"""Largest quantised weight: 2 × 255 × 64 fits in a signed 16-bit sum, 2 × 255 × 127 does not."""
_SMOOTHING = 0.5
"""How much of an outlier moves into the weights. 0.5 was best of 0.3 to 1.0 with 7-bit weights."""


@dataclass(frozen=True)
class Shape:
    """The sizes of the encoder that its weights do not tell. `segments_at` is the layer that they enter."""

    layers: int
    heads: int
    epsilon: float
    segments_at: int
    head_gain: float


@dataclass
class _Graph:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def constant(self, name: str, value: Array) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(self, kind: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, domain=domain, **attributes))
        return output


def build(weights: Mapping[str, Array], shape: Shape, ranges: Mapping[str, Array] | None) -> onnx.ModelProto:
    """The model `(input_ids, segment_ids, attention_mask)` to the fields of `model.Encoded`.

    Shapes: inputs [batch, sequence] of int64; outputs `embedding` [batch, hidden], `heads` [batch, 2].
    `ranges` holds the largest absolute input seen per channel of each linear layer, by its name in
    `weights`; None: float32.
    """
    graph = _Graph()
    hidden = _embeddings(graph, weights, shape, quantise=ranges is not None)
    graph.node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
    for layer in range(shape.layers):
        if layer == shape.segments_at:
            rows = graph.node(
                "Gather", [graph.constant("segments", weights["segments"]), "segment_ids"], "whose"
            )
            hidden = graph.node("Add", [hidden, rows], "hidden.whose")
        hidden = _layer(graph, weights, shape, ranges, layer, hidden)
    _pool(graph, weights, hidden)
    _heads(graph, weights, shape)
    size = weights["embeddings.LayerNorm.weight"].shape[0]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "segment_ids", "attention_mask")
    ]
    outputs = [
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", size]),
        helper.make_tensor_value_info("heads", TensorProto.FLOAT, ["batch", 2]),
    ]
    proto = helper.make_graph(graph.nodes, "encoder", inputs, outputs, list(graph.constants.values()))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(_CONTRIB, 1)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=9, producer_name="arch-ext-proc")


def _embeddings(graph: _Graph, weights: Mapping[str, Array], shape: Shape, *, quantise: bool) -> str:
    words = weights["embeddings.word_embeddings.weight"]
    if quantise:
        scale = np.maximum(np.abs(words).max(1, keepdims=True), 1e-12) / 127
        table = graph.constant("words", np.rint(words / scale).astype(np.int8))
        scales = graph.constant("words.scale", scale.astype(np.float32))
        graph.node("Gather", [table, "input_ids"], "words.rows")
        graph.node("Cast", ["words.rows"], "words.float", to=TensorProto.FLOAT)
        graph.node("Gather", [scales, "input_ids"], "words.scales")
        words_out = graph.node("Mul", ["words.float", "words.scales"], "words.out")
    else:
        words_out = graph.node("Gather", [graph.constant("words", words), "input_ids"], "words.out")
    positions = weights["embeddings.position_embeddings.weight"]
    types = weights["embeddings.token_type_embeddings.weight"]
    graph.constant("positions", (positions + types[0]).astype(np.float32))
    zero = graph.constant("zero", np.array([0], np.int64))
    graph.node("Shape", ["input_ids"], "length", start=1, end=2)
    graph.node("Slice", ["positions", zero, "length", zero], "positions.used")
    summed = graph.node("Add", [words_out, "positions.used"], "embeddings.sum")
    return _norm(graph, weights, "embeddings.LayerNorm", summed, shape)


def _layer(
    graph: _Graph,
    weights: Mapping[str, Array],
    shape: Shape,
    ranges: Mapping[str, Array] | None,
    layer: int,
    hidden: str,
) -> str:
    name = f"encoder.layer.{layer}"
    attention, output = f"{name}.attention", f"{name}.output"
    parts = [f"{attention}.self.{part}" for part in ("query", "key", "value")]
    qkv = _linear(graph, weights, ranges, parts, hidden)
    heads = [f"{attention}.{part}" for part in "qkv"]
    graph.nodes.append(helper.make_node("Split", [qkv], heads, f"{attention}.split", axis=-1, num_outputs=3))
    graph.node(
        "MultiHeadAttention", [*heads, "", "mask"], f"{attention}.context", _CONTRIB, num_heads=shape.heads
    )
    attended = _linear(graph, weights, ranges, [f"{attention}.output.dense"], f"{attention}.context")
    summed = graph.node("Add", [attended, hidden], f"{attention}.sum")
    hidden = _norm(graph, weights, f"{attention}.output.LayerNorm", summed, shape)
    wide = _linear(graph, weights, ranges, [f"{name}.intermediate.dense"], hidden)
    active = graph.node("Gelu", [wide], f"{name}.gelu", _CONTRIB)
    narrow = _linear(graph, weights, ranges, [f"{output}.dense"], active, by_row=True)
    summed = graph.node("Add", [narrow, hidden], f"{output}.sum")
    return _norm(graph, weights, f"{output}.LayerNorm", summed, shape)


def _norm(graph: _Graph, weights: Mapping[str, Array], name: str, value: str, shape: Shape) -> str:
    scale = graph.constant(f"{name}.weight", weights[f"{name}.weight"])
    bias = graph.constant(f"{name}.bias", weights[f"{name}.bias"])
    return graph.node(
        "LayerNormalization", [value, scale, bias], f"{name}.out", axis=-1, epsilon=shape.epsilon
    )


def _linear(
    graph: _Graph,
    weights: Mapping[str, Array],
    ranges: Mapping[str, Array] | None,
    names: list[str],
    value: str,
    *,
    by_row: bool = False,
) -> str:
    """One matrix product for all of `names`, side by side: they share their input."""
    name = names[0]
    matrix = np.concatenate([weights[f"{part}.weight"].T for part in names], axis=1)
    bias = graph.constant(f"{name}.bias", np.concatenate([weights[f"{part}.bias"] for part in names]))
    if ranges is None:
        product = graph.node("MatMul", [value, graph.constant(f"{name}.weight", matrix)], f"{name}.product")
        return graph.node("Add", [product, bias], f"{name}.out")
    smooth = _smoothing(ranges[name], matrix)
    matrix = matrix * smooth[:, None]
    inverse = graph.constant(f"{name}.smooth", (1 / smooth).astype(np.float32))
    value = graph.node("Mul", [value, inverse], f"{name}.smoothed")
    scale = np.maximum(np.abs(matrix).max(0), 1e-12) / _WEIGHT_LIMIT
    quantised = [
        graph.constant(f"{name}.weight", np.rint(matrix / scale).astype(np.int8)),
        graph.constant(f"{name}.scale", scale.astype(np.float32)),
        graph.constant(f"{name}.zero", np.zeros(matrix.shape[1], np.int8)),
    ]
    if not by_row:
        return graph.node("DynamicQuantizeMatMul", [value, *quantised, bias], f"{name}.out", _CONTRIB)
    # Rows of equal range, so that one scale per tensor is one per row; the range goes back in after.
    graph.node("Abs", [value], f"{name}.abs")
    last = graph.constant("last_axis", np.array([-1], np.int64))
    rows = graph.node("ReduceMax", [f"{name}.abs", last], f"{name}.rows")
    even = graph.node("Div", [value, rows], f"{name}.even")
    product = graph.node("DynamicQuantizeMatMul", [even, *quantised], f"{name}.product", _CONTRIB)
    scaled = graph.node("Mul", [product, rows], f"{name}.scaled")
    return graph.node("Add", [scaled, bias], f"{name}.out")


def _smoothing(ranges: Array, matrix: Array) -> Array:
    """Factor per input channel, a power of two: exact, and the same wherever the ranges were measured."""
    inputs = np.maximum(ranges.astype(np.float64), 1e-4)
    outputs = np.maximum(np.abs(matrix).max(1).astype(np.float64), 1e-4)
    factors: Array = np.exp2(np.rint(_SMOOTHING * np.log2(inputs) - (1 - _SMOOTHING) * np.log2(outputs)))
    return factors


def _pool(graph: _Graph, weights: Mapping[str, Array], hidden: str) -> None:
    # What the weights sum to goes with the length.
    last = graph.constant("last_axis", np.array([-1], np.int64))
    one = graph.constant("one", np.array([1], np.int64))
    graph.node("MatMul", [hidden, graph.constant("pool.gate", weights["pool_gate"][:, None])], "pool.gates")
    graph.node("Squeeze", ["pool.gates", last], "pool.says")
    graph.node("Gather", [graph.constant("pool.bias", weights["pool_bias"]), "segment_ids"], "pool.whose")
    graph.node("Add", ["pool.says", "pool.whose"], "pool.logits")
    graph.node("Exp", ["pool.logits"], "pool.all")
    graph.node("Cast", ["attention_mask"], "mask.float", to=TensorProto.FLOAT)
    graph.node("Mul", ["pool.all", "mask.float"], "pool.weights")
    graph.node("Unsqueeze", ["pool.weights", one], "pool.row")
    graph.node("MatMul", ["pool.row", hidden], "pool.sum")
    graph.node("Squeeze", ["pool.sum", one], "pool.vector")
    graph.node("LpNormalization", ["pool.vector"], "embedding", axis=-1, p=2)
    graph.node(
        "Equal", ["segment_ids", graph.constant("newest.row", np.array([_NEWEST], np.int64))], "newest.is"
    )
    graph.node("Cast", ["newest.is"], "newest.all", to=TensorProto.FLOAT)
    graph.node("Mul", ["newest.all", "mask.float"], "newest.weights")
    graph.node("Unsqueeze", ["newest.weights", one], "newest.rows")
    graph.node("MatMul", ["newest.rows", hidden], "newest.sum")
    graph.node("Squeeze", ["newest.sum", one], "newest.vector")
    graph.node("LpNormalization", ["newest.vector"], "newest", axis=-1, p=2)
    graph.node("Concat", ["embedding", "newest"], "both", axis=-1)


def _heads(graph: _Graph, weights: Mapping[str, Array], shape: Shape) -> None:
    wide = graph.constant("heads.in", weights["head_in.weight"].T * np.float32(shape.head_gain))
    wide_bias = graph.constant("heads.in.bias", weights["head_in.bias"])
    narrow = graph.constant("heads.out", weights["head_out.weight"].T)
    narrow_bias = graph.constant("heads.out.bias", weights["head_out.bias"])
    graph.node("MatMul", ["both", wide], "heads.product")
    graph.node("Add", ["heads.product", wide_bias], "heads.wide")
    graph.node("Gelu", ["heads.wide"], "heads.gelu", _CONTRIB)
    graph.node("MatMul", ["heads.gelu", narrow], "heads.narrow")
    graph.node("Add", ["heads.narrow", narrow_bias], "heads")
