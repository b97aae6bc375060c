"""Figures go where the card names them, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import card


def test_the_figures_take_the_place_of_older_ones(tmp_path: Path) -> None:
    path = tmp_path / card.CARD_FILE
    path.write_text("before\n<!-- evaluation -->\nold\n<!-- end of evaluation -->\nafter\n")
    card.put(tmp_path, "evaluation", "| new |\n")
    assert path.read_text() == "before\n<!-- evaluation -->\n| new |\n<!-- end of evaluation -->\nafter\n"


def test_a_card_without_the_place_is_an_error_and_no_card_is_none(tmp_path: Path) -> None:
    card.put(tmp_path, "evaluation", "| new |")
    path = tmp_path / card.CARD_FILE
    path.write_text("nothing\n")
    with pytest.raises(ValueError, match="<!-- evaluation -->"):
        card.put(tmp_path, "evaluation", "| new |")
    assert path.read_text() == "nothing\n"
