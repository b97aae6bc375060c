"""How near two answers are in meaning, by the router's own encoder."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ext_proc.core.errors import RouterError
from ext_proc.router.embedded.encoder import shared_encoder
from ext_proc.router.embedded.tuning import SHIPPED, read_tuning

_TOKENS = 256
"""How much of each answer counts: its beginning and its end. More would cost more than a decision does."""

_MAX_WAITING = 32
"""Pairs that may wait for the thread; one more goes without, so that comparing never falls behind."""


class EmbeddedSimilarity:
    """Implements `core.ports.Similarity`.

    A thread of its own, so that no decision waits behind a pair; it shares the router's weights. They are
    loaded with the first pair.
    """

    def __init__(self, weights: Path = SHIPPED) -> None:
        self._weights = weights
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="similarity")
        self._waiting = 0

    async def similarity(self, one: str, other: str) -> float | None:
        if self._waiting >= _MAX_WAITING:
            return None
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._cosine, one, other)
        except (RouterError, RuntimeError):
            # No weights, an encoder in trouble, or a closed executor.
            return None
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the thread after the pair in hand."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _cosine(self, one: str, other: str) -> float:
        encoder = shared_encoder(self._weights, read_tuning(self._weights))
        first, second = (encoder.text(text, _TOKENS) for text in (one, other))
        return max(-1.0, min(1.0, float(first @ second)))
