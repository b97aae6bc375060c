"""The encoder in torch, as it is trained. `graph.py` writes the same computation for service.

A BERT encoder with four additions: each token says whose it is (`Segment`), from layer `FROZEN` on;
the last layer's second half, the wide one, sees means over tokens instead of tokens, which saves most of
that layer; the mean is weighted by what a token says and whose it is, beside a plain one of the newest
message; and two logits come from those, that a message asks for nothing and a bias for a policy.
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
IDLE_GAIN = 2.0
"""What softplus of the first head is worth in the logit of none."""
_LEAST = 1e-6
HEAD_GAIN = 20.0
"""Unit vectors of 384 have small numbers: this much larger they suit a head's usual initial weights."""
_FIRST_NONE = (9.0, 0.6)
_FIRST_POOLING = (0.0, -1.0, -0.7, 0.0)


@dataclass(frozen=True)
class Encoded:
    """Shapes: `vectors` [batch, hidden] of length 1; `heads` [batch, 2].

    The first head is the logit that a conversation's newest message asks for nothing, the second the bias
    of a policy.
    """

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
        self.idle = nn.Linear(hidden, 1)
        self.bias_in = nn.Linear(hidden, _HEAD_WIDTH)
        self.bias_out = nn.Linear(_HEAD_WIDTH, 1)
        self.none = nn.Parameter(torch.tensor(_FIRST_NONE))
        nn.init.zeros_(self.idle.weight)
        nn.init.normal_(self.bias_out.weight, std=0.05)
        nn.init.zeros_(self.bias_out.bias)
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
        last = len(self.bert.encoder.layer) - 1
        for number, layer in enumerate(self.bert.encoder.layer):
            if number == FROZEN:
                hidden = hidden + self.segments[segments]
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= FROZEN):
                hidden = self._attended(layer, hidden, at, mask)
                if number == last:
                    hidden = self._means(hidden.float(), segments, at // longest, len(batch))
                hidden = self._widened(layer, hidden)
        return self._said(hidden)

    @torch.no_grad()
    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        table = self.bert.embeddings
        summed = table.word_embeddings(ids) + table.position_embeddings(positions)
        found: Tensor = table.LayerNorm(summed + table.token_type_embeddings.weight[0])
        return found

    def _attended(self, layer: Any, hidden: Tensor, at: Tensor, mask: Tensor) -> Tensor:
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
        found: Tensor = output.LayerNorm(output.dense(context) + hidden)
        return found

    def _widened(self, layer: Any, hidden: Tensor) -> Tensor:
        wide = functional.gelu(layer.intermediate.dense(hidden))
        found: Tensor = layer.output.LayerNorm(layer.output.dense(wide) + hidden)
        return found

    def _means(self, hidden: Tensor, segments: Tensor, rows: Tensor, batch: int) -> Tensor:
        """Shapes: [batch, 2, hidden]: of all tokens, weighted, and of the newest message's, if any."""
        weights = (hidden @ self.pool_gate + self.pool_bias[segments]).exp()
        ours = (segments == int(Segment.NEWEST)).to(hidden.dtype)
        both = torch.stack([weights, ours], dim=1)
        sums = hidden.new_zeros(batch, 2, hidden.shape[-1])
        sums = sums.index_add(0, rows, both[:, :, None] * hidden[:, None])
        totals = hidden.new_zeros(batch, 2).index_add(0, rows, both)
        return sums / totals.clamp(min=_LEAST)[:, :, None]

    def _said(self, means: Tensor) -> Encoded:
        vectors, newest = functional.normalize(means.float(), dim=-1).unbind(1)
        bias = self.bias_out(functional.gelu(self.bias_in(vectors * HEAD_GAIN)))
        return Encoded(vectors, torch.cat([self.idle(newest * HEAD_GAIN), bias], dim=-1))

    def logit_of_none(self, heads: Tensor, policies: Tensor) -> Tensor:
        """As `scoring.score` has it. Shapes: [batch]; `policies`, how many there are to choose from, too.

        What is right teaches it where none stands among policies, and nothing about idle messages: it
        would learn there which manner of speaking comes with few policies.
        """
        idle = IDLE_GAIN * functional.softplus(heads[:, 0].detach())
        found: Tensor = self.none[0] + self.none[1] * policies.clamp(min=1).log() + idle
        return found


def load_base(directory: Path) -> Encoder:
    """The encoder with the weights of a sentence-transformers BERT, nothing trained yet."""
    torch.manual_seed(_SEED)
    bert = transformers.BertModel.from_pretrained(directory, add_pooling_layer=False)
    return Encoder(bert).eval()


def policy_logits(conversations: Encoded, policies: Encoded, items: Tensor, items_of: Tensor) -> Tensor:
    """As `scoring.policy_logits` has it.

    Shapes: `items` [items, hidden], those of policy `items_of`; the result [conversations, policies].
    """
    per_policy = SCALE * conversations.vectors @ policies.vectors.T
    near = SCALE * conversations.vectors @ items.T
    columns = []
    for number, whole in enumerate(per_policy.unbind(1)):
        own = near[:, items_of == number]
        nearest = own.logsumexp(1) - math.log(own.shape[1]) if own.shape[1] else whole
        columns.append((whole + nearest) / 2 + policies.heads[number, 1])
    return torch.stack(columns, dim=1)


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Several batches as one."""
    return Encoded(torch.cat([part.vectors for part in parts]), torch.cat([part.heads for part in parts]))
