"""The answers of primaries and copies, brought together and compared beside the traffic."""

from ext_proc.comparisons.comparer import Comparer
from ext_proc.comparisons.recent import RecentComparisons

__all__ = ["Comparer", "RecentComparisons"]
