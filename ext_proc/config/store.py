"""The thing in force now."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Store(Generic[T]):
    """Holds one immutable value. A stream takes `current()` once and keeps it to its end.

    A swap is one assignment, which Python makes atomic: readers see the old value or the new one.
    """

    __slots__ = ("_current",)

    def __init__(self, current: T) -> None:
        self._current = current

    def current(self) -> T:
        return self._current

    def swap(self, new: T) -> T:
        """Put `new` in force and give back what was."""
        old, self._current = self._current, new
        return old
