"""The forward pass: conversations of one configuration in, log-probabilities of all answers out."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from ext_proc.router.causal_lm.prompting import Asked
from ext_proc.router.causal_lm.tree import ROOT, AnswerTree

KeyValues = tuple[tuple[torch.Tensor, torch.Tensor], ...]

_KEPT_PREFIXES = 4
"""Caches kept: the current configuration's, and older ones that streams in flight still hold."""

_LONGEST = 1.5
"""How much longer than its shortest row a pass may be."""

PASS_BYTES = 1 << 29
"""Bounds the logits of one pass, and its masks: with a vocabulary of 152,000 or a long conversation they
are the largest tensors. A single row may take more."""

_BYTES_PER_SEEN = 6
"""Of each pair of tokens in the masks: two of booleans and one of at most four bytes."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Log-probabilities of one request.

    Shapes: `per_step` has one row per answer with one value per step of it; their sum is the answer's.
    """

    per_step: tuple[tuple[float, ...], ...]


class Engine:
    """Runs a causal language model of transformers. Not for two threads at once."""

    def __init__(self, model: Any, pass_bytes: int = PASS_BYTES) -> None:
        self._model = model.eval()
        self._pass_bytes = pass_bytes
        self._device = model.device
        self._dtype = model.dtype
        # transformers renamed it in 5.24.
        names = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"
        self._prefixes: OrderedDict[tuple[int, ...], KeyValues] = OrderedDict()

    @torch.inference_mode()
    def warm(self, asked: Asked) -> None:
        """Compute the KV cache of a configuration's constant half, unless it is there, and keep it."""
        prefix = asked.prefix
        if prefix not in self._prefixes:
            cache = DynamicCache()
            if prefix:
                ids = torch.tensor([prefix], device=self._device)
                self._call(cache, input_ids=ids, logits_to_keep=1)
            layers: Any = cache.layers
            self._prefixes[prefix] = tuple((layer.keys, layer.values) for layer in layers)
        self._prefixes.move_to_end(prefix)
        while len(self._prefixes) > _KEPT_PREFIXES:
            self._prefixes.popitem(last=False)

    def forget(self, asked: Asked) -> None:
        """Free the KV cache of a configuration's constant half."""
        self._prefixes.pop(asked.prefix, None)

    @torch.inference_mode()
    def answer(self, prompts: Sequence[Sequence[int]], asked: Asked) -> list[Answered]:
        """Answer several prompts for one set of policies in one pass, or in a few if it would be large.

        Shapes: prompts are not empty. One that does not begin with `asked.prefix` is read from its start,
        and so is every one when nobody warmed that prefix: what requests bring along leaves nothing here.
        """
        kept = asked.prefix if asked.prefix in self._prefixes else ()
        rows: dict[tuple[int, ...], list[int]] = {}
        for index, prompt in enumerate(prompts):
            rows.setdefault(kept if _begins_with(prompt, kept) else (), []).append(index)
        answers: dict[int, Answered] = {}
        for prefix, indexes in rows.items():
            key_values: KeyValues = ()
            if prefix:
                key_values = self._prefixes[prefix]
                self._prefixes.move_to_end(prefix)
            for chunk in self._chunks(indexes, list(map(len, prompts)), asked.tree, len(prefix)):
                suffixes = [prompts[index][len(prefix) :] for index in chunk]
                answers |= zip(
                    chunk, self._forward(suffixes, asked.tree, len(prefix), key_values), strict=True
                )
        return [answers[index] for index in range(len(prompts))]

    def _chunks(
        self, indexes: Sequence[int], lengths: Sequence[int], tree: AnswerTree, past: int
    ) -> list[list[int]]:
        """Rows that go together: of like length, because padding is computed too, and not too many."""
        nodes = len(tree.tokens)
        chunks: list[list[int]] = []
        for index in sorted(indexes, key=lambda index: lengths[index]):
            current = chunks[-1] if chunks else []
            seen = (lengths[index] - past + nodes) * (lengths[index] + nodes) * _BYTES_PER_SEEN
            logits = (1 + nodes) * self._model.config.vocab_size * 4
            fits = (len(current) + 1) * max(seen, logits) <= self._pass_bytes
            if current and fits and lengths[index] <= _LONGEST * lengths[current[0]]:
                current.append(index)
            else:
                chunks.append([index])
        return chunks

    def _forward(
        self, suffixes: Sequence[Sequence[int]], tree: AnswerTree, past: int, key_values: KeyValues
    ) -> list[Answered]:
        """Rows are padded on the left, so that each ends at the root and goes on with the tree."""
        width = max(map(len, suffixes))
        nodes = len(tree.tokens)
        ids = torch.zeros(len(suffixes), width + nodes, dtype=torch.long)
        positions = torch.zeros_like(ids)
        # True where a token (row) may see another (column: the past first).
        sees = torch.zeros(len(suffixes), 1, width + nodes, past + width + nodes, dtype=torch.bool)
        sees[..., :past] = True
        sees[:, :, :, past:] = _tree_mask(tree, width)
        for row, suffix in enumerate(suffixes):
            pad = width - len(suffix)
            ids[row] = torch.tensor([*[0] * pad, *suffix, *tree.tokens])
            positions[row, pad:width] = torch.arange(past, past + len(suffix))
            positions[row, width:] = torch.tensor(tree.depths, dtype=torch.long) + past + len(suffix)
            # Padding sees itself, since attention to nothing is NaN, and is seen by nobody else.
            sees[row, :, pad:, past : past + pad] = False
        # A request's own cache object over the shared tensors: appending makes new ones.
        count = len(suffixes)
        cache = DynamicCache(
            [(k.expand(count, -1, -1, -1), v.expand(count, -1, -1, -1)) for k, v in key_values]
        )
        logits = self._call(
            cache,
            input_ids=ids.to(self._device),
            position_ids=positions.to(self._device),
            attention_mask=self._additive(sees),
            logits_to_keep=1 + nodes,
        ).logits
        return _read(logits.float(), tree)

    def _call(self, cache: DynamicCache, **inputs: Any) -> Any:
        return self._model(**inputs, **{self._cache_name: cache}, use_cache=True)

    def _additive(self, sees: torch.Tensor) -> torch.Tensor:
        """Every kind of attention takes an additive mask."""
        mask = torch.zeros(sees.shape, dtype=self._dtype)
        return mask.masked_fill_(~sees, torch.finfo(self._dtype).min).to(self._device)


def _tree_mask(tree: AnswerTree, width: int) -> torch.Tensor:
    nodes = len(tree.tokens)
    mask = torch.ones(width + nodes, width + nodes, dtype=torch.bool).tril_()
    mask[width:, width:] = False
    for node in range(nodes):
        mask[width + node, [width + seen for seen in tree.ancestors(node)]] = True
    return mask


def _read(logits: torch.Tensor, tree: AnswerTree) -> list[Answered]:
    """Shapes: logits [rows, 1 + nodes, vocabulary], the root's first."""
    wanted = [(step.parent - ROOT, step.token) for steps in tree.answers for step in steps]
    places = torch.tensor([place for place, _ in wanted], device=logits.device)
    tokens = torch.tensor([token for _, token in wanted], device=logits.device)
    rows: list[list[float]] = (logits[:, places, tokens] - logits.logsumexp(-1)[:, places]).tolist()
    answered = []
    for row in rows:
        values = iter(row)
        answered.append(Answered(tuple(tuple(next(values) for _ in steps) for steps in tree.answers)))
    return answered


def _begins_with(prompt: Sequence[int], prefix: tuple[int, ...]) -> bool:
    # The forced tokens at least are left for the pass.
    return len(prompt) > len(prefix) and tuple(prompt[: len(prefix)]) == prefix
