"""Figures in the model card, between the comments that name them."""

from __future__ import annotations

import re
from pathlib import Path

CARD_FILE = "MODEL_CARD.md"


def put(weights: Path, name: str, text: str) -> None:
    """Put `text` where the card beside these weights has `<!-- name -->`. Without a card, nothing.

    Errors: ValueError when the card has no such place.
    """
    path = weights / CARD_FILE
    if not path.exists():
        return
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    card, found = place.subn(lambda _: f"{begin}\n{text.strip()}\n{end}", path.read_text(encoding="utf-8"))
    if not found:
        raise ValueError(f"{path} has no {begin} with an {end} after it")
    path.write_text(card, encoding="utf-8")
