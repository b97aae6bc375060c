"""Conversations and policies as the encoder's input, exactly as in service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ext_proc.core.types import Message
from ext_proc.router.embedded.tokens import Tokenizing, Tokens
from ext_proc.router.embedded.tuning import Tuning
from ext_proc.router.embedded.turns import Segment, choose_turns


class Tokenized:
    """One tokenizer and one set of limits."""

    def __init__(self, tuning: Tuning, tokenizer: Path) -> None:
        self._tuning = tuning
        self._tokenizing = Tokenizing(tokenizer, tuning.head_share)

    def conversation(self, messages: Sequence[Message]) -> Tokens:
        """A conversation with a user's text in it."""
        return self._tokenizing.turns(choose_turns(messages, self._tuning), self._tuning.max_tokens_together)

    def policy(self, text: str) -> Tokens:
        """A policy's text."""
        return self._tokenizing.text(text, Segment.POLICY, self._tuning.max_tokens)
