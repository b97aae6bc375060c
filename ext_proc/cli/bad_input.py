"""What a command was given and cannot use."""

from __future__ import annotations


class BadInput(Exception):
    """The text says what is wrong with it."""
