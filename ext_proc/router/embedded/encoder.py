"""Tokens to vectors: the ONNX session."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime

from ext_proc.core.errors import Reason, RouterError
from ext_proc.router.embedded.scoring import Encoded, Vectors
from ext_proc.router.embedded.tokens import Tokenizing, Tokens
from ext_proc.router.embedded.tuning import MODEL_FILE, TOKENIZER_FILE, Tuning
from ext_proc.router.embedded.turns import Segment, Turn

_OUTPUTS = ("embedding", "heads")


class Encoder:
    """The encoder. Any thread may call it; each call takes one core for its few milliseconds.

    One text at a time: quantisation looks at a whole batch, so beside others a text would get another
    vector.
    """

    def __init__(self, directory: Path, tuning: Tuning) -> None:
        self._tuning = tuning
        self._tokenizing = Tokenizing(directory / TOKENIZER_FILE, tuning.head_share)
        self._session = onnxruntime.InferenceSession(
            str(directory / MODEL_FILE), _options(), providers=["CPUExecutionProvider"]
        )

    @property
    def hidden(self) -> int:
        """The size of a vector."""
        size: int = self._session.get_outputs()[0].shape[1]
        return size

    def conversation(self, turns: Sequence[Turn]) -> Encoded:
        """Encode the turns of a conversation, at least one, together."""
        return self.encode(self._tokenizing.turns(turns, self._tuning.max_tokens_together))

    def policy(self, text: str) -> Encoded:
        """Encode a policy's text."""
        return self.encode(self._tokenizing.text(text, Segment.POLICY, self._tuning.max_tokens))

    def message(self, text: str) -> Encoded:
        """Encode any text as if a user had written it."""
        return self.encode(self._tokenizing.text(text, Segment.NEWEST, self._tuning.max_tokens))

    def text(self, text: str, max_tokens: int) -> Vectors:
        """The vector of any text, as if a user had written it. Shapes: [hidden]."""
        return self.encode(self._tokenizing.text(text, Segment.NEWEST, max_tokens)).vector

    def encode(self, tokens: Tokens) -> Encoded:
        """Encode tokens."""
        inputs = {
            "input_ids": np.array([tokens.ids], np.int64),
            "segment_ids": np.array([tokens.segments], np.int64),
        }
        vectors, heads = self._session.run(_OUTPUTS, inputs)
        return Encoded(vectors[0], float(heads[0, 0]), float(heads[0, 1]))


@lru_cache(maxsize=2)
def shared_encoder(directory: Path, tuning: Tuning) -> Encoder:
    """The encoder of these weights, once per process: a new configuration does not load them again.

    Errors: RouterError when the files cannot be loaded.
    """
    try:
        return Encoder(directory, tuning)
    except Exception as error:
        # onnxruntime and tokenizers raise types of their own, tokenizers a bare Exception.
        raise RouterError(
            Reason.ROUTER_ERROR, f"cannot load the embedded router's weights in {directory}: {error}"
        ) from error


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # A spinning thread would eat the core that the event loop needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The export fused what pays. Beyond BASIC, Add and LayerNormalization would become
    # SkipLayerNormalization, which takes five times their time (onnxruntime 1.32, AVX-512).
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    return options
