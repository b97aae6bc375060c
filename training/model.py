"""The encoder in torch, as it is trained. `graph.py` writes the same computation for service.

A BERT encoder with three additions: each token says whose it is (`Segment`), from layer `FROZEN` on;
the mean over tokens is weighted by what a token says and whose it is; and two logits come from the
vector and the mean of the newest message alone, "none of them" for a conversation and a bias for a
policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from ext_proc.router.embedded.tokens import Tokens
from ext_proc.router.embedded.turns import Segment

_SEED = 67280421310721
"""The one that torch begins with."""
FROZEN = 2
"""Layers below this one, and the embeddings, stay as they are: less to compute, less to forget."""
SCALE = 20.0
"""A cosine times this is a logit."""
_HEAD_WIDTH = 64
HEAD_GAIN = 20.0
"""Unit vectors of 384 have small numbers: this much larger they suit a head's usual initial weights."""
_FIRST_NONE = 9.0
_FIRST_POOLING = (0.0, -1.0, -0.7, 0.0)


@dataclass(frozen=True)
class Encoded:
    """Shapes: `vectors` [batch, hidden] of length 1; `heads` [batch, 2], the logit of none and the bias."""

    vectors: Tensor
    heads: Tensor


class Encoder(nn.Module):
    """Tokens to `Encoded`."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert
        hidden = bert.config.hidden_size
        self.segments = nn.Parameter(torch.zeros(len(Segment), hidden))
        self.pool_gate = nn.Parameter(torch.zeros(hidden))
        self.pool_bias = nn.Parameter(torch.tensor(_FIRST_POOLING))
        self.head_in = nn.Linear(2 * hidden, _HEAD_WIDTH)
        self.head_out = nn.Linear(_HEAD_WIDTH, 2)
        nn.init.normal_(self.head_out.weight, std=0.05)
        nn.init.constant_(self.head_out.bias[:1], _FIRST_NONE)
        nn.init.zeros_(self.head_out.bias[1:])
        for module in (bert.embeddings, *bert.encoder.layer[:FROZEN]):
            module.requires_grad_(False)

    def forward(self, batch: Sequence[Tokens]) -> Encoded:
        """Encode a batch, of any lengths."""
        lengths = [len(tokens.ids) for tokens in batch]
        longest = max(lengths)
        flat = np.concatenate([row * longest + np.arange(length) for row, length in enumerate(lengths)])
        at = torch.from_numpy(flat)
        ids = torch.tensor([token for tokens in batch for token in tokens.ids])
        segments = torch.tensor([segment for tokens in batch for segment in tokens.segments])
        mask = torch.zeros(len(batch) * longest, dtype=torch.bool)
        mask[at] = True
        mask = mask.view(len(batch), 1, 1, longest)
        hidden = self._embed(ids, at % longest)
        for number, layer in enumerate(self.bert.encoder.layer):
            if number == FROZEN:
                hidden = hidden + self.segments[segments]
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= FROZEN):
                hidden = self._layer(layer, hidden, at, mask)
        hidden = hidden.float()
        return self._pool(hidden, segments, at // longest, len(batch))

    @torch.no_grad()
    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        table = self.bert.embeddings
        summed = table.word_embeddings(ids) + table.position_embeddings(positions)
        found: Tensor = table.LayerNorm(summed + table.token_type_embeddings.weight[0])
        return found

    def _layer(self, layer: Any, hidden: Tensor, at: Tensor, mask: Tensor) -> Tensor:
        # Only real tokens are multiplied; the rows are padded for attention alone.
        own = layer.attention.self
        batch, longest, heads = mask.shape[0], mask.shape[-1], own.num_attention_heads
        parts = torch.cat([part(hidden) for part in (own.query, own.key, own.value)], dim=-1)
        padded = parts.new_zeros(batch * longest, parts.shape[-1]).index_copy(0, at, parts)
        query, key, value = padded.view(batch, longest, 3, heads, -1).permute(2, 0, 3, 1, 4)
        # Plain products: torch's fused attention takes three times their time backwards (2.13, CPU).
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        context = scores.masked_fill(~mask, -1e4).softmax(-1).to(value.dtype) @ value
        context = context.transpose(1, 2).reshape(batch * longest, -1)[at]
        output = layer.attention.output
        hidden = output.LayerNorm(output.dense(context) + hidden)
        wide = functional.gelu(layer.intermediate.dense(hidden))
        found: Tensor = layer.output.LayerNorm(layer.output.dense(wide) + hidden)
        return found

    def _pool(self, hidden: Tensor, segments: Tensor, rows: Tensor, batch: int) -> Encoded:
        weights = (hidden @ self.pool_gate + self.pool_bias[segments]).exp()
        summed = hidden.new_zeros(batch, hidden.shape[-1]).index_add(0, rows, weights[:, None] * hidden)
        vectors = functional.normalize(summed, dim=-1)
        ours = (segments == int(Segment.NEWEST)).float()
        newest = hidden.new_zeros(batch, hidden.shape[-1]).index_add(0, rows, ours[:, None] * hidden)
        newest = functional.normalize(newest, dim=-1)
        both = torch.cat([vectors, newest], dim=-1)
        heads = self.head_out(functional.gelu(self.head_in(both * HEAD_GAIN)))
        return Encoded(vectors, heads)


def load_base(directory: Path) -> Encoder:
    """The encoder with the weights of a sentence-transformers BERT, nothing trained yet."""
    torch.manual_seed(_SEED)
    bert = transformers.BertModel.from_pretrained(directory, add_pooling_layer=False)
    return Encoder(bert).eval()


def logits(conversations: Encoded, policies: Encoded, items: Tensor, items_of: Tensor) -> Tensor:
    """Of each policy, "none of them" last, as `scoring.policy_logits` has it.

    Shapes: `items` [items, hidden], those of policy `items_of`; the result [conversations, policies + 1].
    """
    per_policy = SCALE * conversations.vectors @ policies.vectors.T
    near = SCALE * conversations.vectors @ items.T
    columns = []
    for number, whole in enumerate(per_policy.unbind(1)):
        own = near[:, items_of == number]
        nearest = own.logsumexp(1) - math.log(own.shape[1]) if own.shape[1] else whole
        columns.append((whole + nearest) / 2 + policies.heads[number, 1])
    return torch.stack([*columns, conversations.heads[:, 0]], dim=1)


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Several batches as one."""
    return Encoded(torch.cat([part.vectors for part in parts]), torch.cat([part.heads for part in parts]))
