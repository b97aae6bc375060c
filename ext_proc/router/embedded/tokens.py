"""Texts to the encoder's input: token numbers and what each token belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from ext_proc.router.embedded.turns import Segment, Turn, cut_middle

_SMALLEST = 4
"""Tokens of an earlier turn that are worth a separator."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Shapes: both of one length. `segments` are rows of the encoder's segment table."""

    ids: list[int]
    segments: list[int]


class Tokenizing:
    """The tokenizer, with what the encoder expects around the texts. Any thread may call it."""

    def __init__(self, file: Path, head_share: float) -> None:
        self._tokenizer = Tokenizer.from_file(str(file))
        # Sentence encoders come with both turned on.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._first = self._token_id("[CLS]")
        self._last = self._token_id("[SEP]")
        self._head_share = head_share

    def turns(self, turns: Sequence[Turn], max_tokens: int) -> Tokens:
        """All turns as one text, in their order, of at most `max_tokens`, the special tokens included.

        Every turn is cut in the middle to its own limit; the last ones are cut to what room there is.
        """
        ids, segments = [self._first], [int(turns[0].segment)]
        for turn in turns:
            room = min(turn.max_tokens, max_tokens - len(ids) - 1)
            if room < _SMALLEST:
                break
            found = [*self._ids(turn.text, room), self._last]
            ids += found
            segments += [int(turn.segment)] * len(found)
        return Tokens(ids, segments)

    def text(self, text: str, segment: Segment, max_tokens: int) -> Tokens:
        """One text alone."""
        return self.turns([Turn(text, segment, max_tokens - 2)], max_tokens)

    def _ids(self, text: str, room: int) -> list[int]:
        text = cut_middle(text, room, self._head_share)
        # JSON may carry half a surrogate pair, which no UTF-8 library takes.
        valid = text.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self._tokenizer.encode(valid, add_special_tokens=False).ids
        if len(ids) <= room:
            return ids
        head = round(room * self._head_share)
        return ids[:head] + ids[len(ids) - room + head :]

    def _token_id(self, token: str) -> int:
        number: int | None = self._tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"the tokenizer has no {token}")
        return number
