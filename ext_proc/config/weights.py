"""Weights as people write them, to shares of 10,000."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from ext_proc.core.types import WHOLE_PER_10K


def exact(number: float) -> Fraction:
    """The number as it was written: 0.1 is a tenth, not the nearest binary fraction."""
    return Fraction(repr(number))


def normalise(weights: Sequence[float]) -> tuple[int, ...]:
    """Scale weights so that they sum to 10,000, by largest remainder, ties to the earlier.

    Shapes: at least one weight, all finite and not negative, at least one positive; as many results.
    A weight of zero stays zero.
    """
    parts = [exact(weight) for weight in weights]
    shares = [part * WHOLE_PER_10K / sum(parts) for part in parts]
    result = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: result[index] - shares[index])
    for index in by_remainder[: WHOLE_PER_10K - sum(result)]:
        result[index] += 1
    return tuple(result)
