"""When a worker that ended is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

STABLE_S = 60.0
"""Whoever served for so long did not end because of how it was started."""

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 30.0


@dataclass(frozen=True, slots=True)
class Record:
    """How a worker's place fared: `crashes` in a row, none of which lasted."""

    crashes: int = 0


def after_crash(record: Record, served_s: float | None) -> tuple[Record, float]:
    """The record with one more crash, and how long to wait before the next start.

    `served_s` is how long the worker served; None: it was never ready. One that lasted is replaced at once,
    and so is the first that did not; then each waits twice as long as the one before it.

    Units: seconds, from 0 to `LONGEST_DELAY_S`.
    """
    if served_s is not None and served_s >= STABLE_S:
        return Record(), 0.0
    crashes = record.crashes + 1
    delay_s = 0.0 if crashes == 1 and served_s is not None else FIRST_DELAY_S * 2.0 ** min(crashes - 1, 16)
    return Record(crashes), min(delay_s, LONGEST_DELAY_S)
