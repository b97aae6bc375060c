"""A BERT encoder's weights as an ONNX graph, node by node, in float32 or int8.

Written by hand, because what an exporter emits changes with its version, and because the fast graph is
not the one that fusing tools aim at: onnxruntime 1.32's SkipLayerNormalization takes five times its parts
(one core with VNNI, 64 tokens: 4.4 ms with it, 2.9 ms without).

Quantisation: weights to 7 bits per output channel, because without VNNI x86 adds pairs of 8-bit
products in 16 bits, which overflows; activations to 8 bits, dynamically. Two things keep the vectors
close: outlier channels of the input are scaled into the weights (SmoothQuant, arXiv 2211.10438), and
the widest activation, after GELU, is quantised row by row.

One text at a time: quantisation looks at a whole batch, so beside others a text would get another vector.
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


_LEAST_RANGE, _LEAST_TOTAL = 0.2, 1e-6


@dataclass(frozen=True)
class Shape:
    """The sizes of the encoder that its weights do not tell. `segments_at` is the layer that they enter."""

    layers: int
    heads: int
    epsilon: float
    segments_at: int
    head_gain: float
    idle_gain: float


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
    """The model `(input_ids, segment_ids)` to the fields of `model.Encoded`, one text at a time.

    The first head is what it adds to the logit of none.

    Shapes: inputs [1, sequence] of int64; outputs `embedding` [1, hidden], `heads` [1, 2].
    `ranges` holds the largest absolute input seen per channel of each linear layer, by its name in
    `weights`; None: float32.
    """
    graph = _Graph()
    hidden = _embeddings(graph, weights, shape, quantise=ranges is not None)
    for layer in range(shape.layers):
        if layer == shape.segments_at:
            rows = graph.node(
                "Gather", [graph.constant("segments", weights["segments"]), "segment_ids"], "whose"
            )
            hidden = graph.node("Add", [hidden, rows], "hidden.whose")
        hidden = _attended(graph, weights, shape, ranges, layer, hidden)
        if layer == shape.layers - 1:
            hidden = _means(graph, weights, hidden)
        hidden = _widened(graph, weights, shape, ranges, layer, hidden)
    _said(graph, weights, shape, hidden)
    size = weights["embeddings.LayerNorm.weight"].shape[0]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [1, "sequence"])
        for name in ("input_ids", "segment_ids")
    ]
    outputs = [
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, size]),
        helper.make_tensor_value_info("heads", TensorProto.FLOAT, [1, 2]),
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


def _attended(
    graph: _Graph,
    weights: Mapping[str, Array],
    shape: Shape,
    ranges: Mapping[str, Array] | None,
    layer: int,
    hidden: str,
) -> str:
    """The first half of a layer, a residual and its norm included."""
    attention = f"encoder.layer.{layer}.attention"
    parts = [f"{attention}.self.{part}" for part in ("query", "key", "value")]
    dense = f"{attention}.output.dense"
    if ranges is not None:
        weights = _smoothed_ahead(weights, ranges[dense], parts[-1], dense)
    qkv = _linear(graph, weights, ranges, parts, hidden)
    heads = [f"{attention}.{part}" for part in "qkv"]
    graph.nodes.append(helper.make_node("Split", [qkv], heads, f"{attention}.split", axis=-1, num_outputs=3))
    graph.node("MultiHeadAttention", heads, f"{attention}.context", _CONTRIB, num_heads=shape.heads)
    attended = _linear(graph, weights, ranges, [dense], f"{attention}.context", smooth=False)
    summed = graph.node("Add", [attended, hidden], f"{attention}.sum")
    return _norm(graph, weights, f"{attention}.output.LayerNorm", summed, shape)


def _widened(
    graph: _Graph,
    weights: Mapping[str, Array],
    shape: Shape,
    ranges: Mapping[str, Array] | None,
    layer: int,
    hidden: str,
) -> str:
    """The second half of a layer, a residual and its norm included."""
    name = f"encoder.layer.{layer}"
    output = f"{name}.output"
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
    smooth: bool = True,
    by_row: bool = False,
) -> str:
    """One matrix product for all of `names`, side by side: they share their input."""
    name = names[0]
    matrix = np.concatenate([weights[f"{part}.weight"].T for part in names], axis=1)
    bias = graph.constant(f"{name}.bias", np.concatenate([weights[f"{part}.bias"] for part in names]))
    if ranges is None:
        product = graph.node("MatMul", [value, graph.constant(f"{name}.weight", matrix)], f"{name}.product")
        return graph.node("Add", [product, bias], f"{name}.out")
    if smooth:
        factors = _smoothing(ranges[name], matrix)
        matrix = matrix * factors[:, None]
        inverse = graph.constant(f"{name}.smooth", (1 / factors).astype(np.float32))
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
    # What comes out of GELU is never far below 0: the largest is the widest.
    last = graph.constant("last_axis", np.array([-1], np.int64))
    graph.node("ReduceMax", [value, last], f"{name}.largest")
    least = graph.constant("least_range", np.array(_LEAST_RANGE, np.float32))
    rows = graph.node("Max", [f"{name}.largest", least], f"{name}.rows")
    even = graph.node("Div", [value, rows], f"{name}.even")
    product = graph.node("DynamicQuantizeMatMul", [even, *quantised], f"{name}.product", _CONTRIB)
    scaled = graph.node("Mul", [product, rows], f"{name}.scaled")
    return graph.node("Add", [scaled, bias], f"{name}.out")


def _smoothed_ahead(
    weights: Mapping[str, Array], ranges: Array, before: str, name: str
) -> Mapping[str, Array]:
    """The weights with what `_linear` does to the input of `name` done where that comes from, for free.

    What is between `before` and `name` must be linear: attention takes means of values.
    """
    factors = _smoothing(ranges, weights[f"{name}.weight"].T).astype(np.float32)
    changed = {
        f"{before}.weight": weights[f"{before}.weight"] / factors[:, None],
        f"{before}.bias": weights[f"{before}.bias"] / factors,
        f"{name}.weight": weights[f"{name}.weight"] * factors,
    }
    return {**weights, **changed}


def _smoothing(ranges: Array, matrix: Array) -> Array:
    """Factor per input channel, a power of two: exact, and the same wherever the ranges were measured."""
    inputs = np.maximum(ranges.astype(np.float64), 1e-4)
    outputs = np.maximum(np.abs(matrix).max(1).astype(np.float64), 1e-4)
    factors: Array = np.exp2(np.rint(_SMOOTHING * np.log2(inputs) - (1 - _SMOOTHING) * np.log2(outputs)))
    return factors


def _means(graph: _Graph, weights: Mapping[str, Array], hidden: str) -> str:
    """Of all tokens, weighted, and of the newest message's. Shapes: [1, 2, hidden]."""
    last = graph.constant("last_axis", np.array([-1], np.int64))
    one = graph.constant("one", np.array([1], np.int64))
    graph.node("MatMul", [hidden, graph.constant("pool.gate", weights["pool_gate"][:, None])], "pool.gates")
    graph.node("Squeeze", ["pool.gates", last], "pool.says")
    graph.node("Gather", [graph.constant("pool.bias", weights["pool_bias"]), "segment_ids"], "pool.whose")
    graph.node("Add", ["pool.says", "pool.whose"], "pool.logits")
    graph.node("Exp", ["pool.logits"], "pool.all")
    newest = graph.constant("newest.number", np.array([_NEWEST], np.int64))
    graph.node("Equal", ["segment_ids", newest], "newest.is")
    graph.node("Cast", ["newest.is"], "newest.all", to=TensorProto.FLOAT)
    for rows in ("pool", "newest"):
        graph.node("Unsqueeze", [f"{rows}.all", one], f"{rows}.row")
    both = graph.node("Concat", ["pool.row", "newest.row"], "means.weights", axis=1)
    graph.node("ReduceSum", [both, last], "means.totals")
    least = graph.constant("least_total", np.array(_LEAST_TOTAL, np.float32))
    totals = graph.node("Max", ["means.totals", least], "means.divisors")
    shares = graph.node("Div", [both, totals], "means.shares")
    return graph.node("MatMul", [shares, hidden], "means")


def _said(graph: _Graph, weights: Mapping[str, Array], shape: Shape, means: str) -> None:
    one = graph.constant("one", np.array([1], np.int64))
    graph.node("LpNormalization", [means], "vectors", axis=-1, p=2)
    graph.nodes.append(
        helper.make_node("Split", ["vectors"], ["whole", "alone"], "apart", axis=1, num_outputs=2)
    )
    graph.node("Squeeze", ["whole", one], "embedding")
    graph.node("Squeeze", ["alone", one], "newest")
    _head(graph, weights, "idle", "newest", shape.head_gain)
    graph.node("Softplus", ["idle"], "idle.soft")
    gain = graph.constant("idle.gain", np.array(shape.idle_gain, np.float32))
    idle = graph.node("Mul", ["idle.soft", gain], "idle.worth")
    wide = _head(graph, weights, "bias_in", "embedding", shape.head_gain)
    graph.node("Gelu", [wide], "bias.gelu", _CONTRIB)
    bias = _head(graph, weights, "bias_out", "bias.gelu", 1.0)
    graph.node("Concat", [idle, bias], "heads", axis=-1)


def _head(graph: _Graph, weights: Mapping[str, Array], name: str, value: str, gain: float) -> str:
    matrix = graph.constant(f"{name}.weight", weights[f"{name}.weight"].T * np.float32(gain))
    graph.node("MatMul", [value, matrix], f"{name}.product")
    return graph.node(
        "Add", [f"{name}.product", graph.constant(f"{name}.bias", weights[f"{name}.bias"])], name
    )
