"""Text to unit vector: the tokenizer and the ONNX session."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from ext_proc.core.errors import Reason, RouterError
from ext_proc.router.embedded.scoring import Vectors
from ext_proc.router.embedded.tuning import MODEL_FILE, TOKENIZER_FILE
from ext_proc.router.embedded.turns import cut_middle

_SPECIAL_TOKENS = 2


class Encoder:
    """A sentence encoder. Any thread may call it; each call takes one core for its few milliseconds."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(directory / TOKENIZER_FILE))
        self._first = self._token_id("[CLS]")
        self._last = self._token_id("[SEP]")
        self._session = onnxruntime.InferenceSession(
            str(directory / MODEL_FILE), _options(), providers=["CPUExecutionProvider"]
        )

    def encode(self, text: str, max_tokens: int, head_share: float) -> Vectors:
        """Encode one text, cut in the middle to `max_tokens`, the two special tokens included.

        One text at a time: quantisation looks at a whole batch, so beside others a text would get
        another vector.
        """
        ids = np.array([[self._first, *self._ids(text, max_tokens, head_share), self._last]], np.int64)
        (vectors,) = self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        vector: Vectors = vectors[0]
        return vector

    def _ids(self, text: str, max_tokens: int, head_share: float) -> list[int]:
        ids = self._tokens(cut_middle(text, max_tokens, head_share))
        room = max_tokens - _SPECIAL_TOKENS
        if len(ids) <= room:
            return ids
        head = round(room * head_share)
        return ids[:head] + ids[len(ids) - room + head :]

    def _tokens(self, text: str) -> list[int]:
        # JSON may carry half a surrogate pair, which no UTF-8 library takes.
        valid = text.encode("utf-8", "replace").decode("utf-8")
        return self._tokenizer.encode(valid, add_special_tokens=False).ids

    def _token_id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"the tokenizer has no {token}")
        return number


@lru_cache(maxsize=2)
def shared_encoder(directory: Path) -> Encoder:
    """The encoder of these weights, once per process: a new configuration does not load them again.

    Errors: RouterError when the files cannot be loaded.
    """
    try:
        return Encoder(directory)
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
