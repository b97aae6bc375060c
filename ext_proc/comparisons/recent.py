"""The comparisons of late, in figures, and what they add up to: for the operator's page."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ext_proc.core.observation import Comparison, Preference
from ext_proc.telemetry.answers import figures

KEPT = 200


@dataclass(slots=True)
class _Sum:
    """Measures of one policy, shadow and role. Each mean is over those pairs where it could be told."""

    pairs: int = 0
    failed: int = 0
    exact: int = 0
    compared: int = 0
    similarity: float = 0.0
    similarities: int = 0
    structured: int = 0
    structured_equal: int = 0
    primary_refused: int = 0
    shadow_refused: int = 0
    primary: int = 0
    shadow: int = 0
    tie: int = 0

    def add(self, comparison: Comparison) -> None:
        self.pairs += 1
        self.failed += comparison.shadow.is_error
        if comparison.exact is not None:
            self.compared += 1
            self.exact += comparison.exact
            self.primary_refused += bool(comparison.primary_refused)
            self.shadow_refused += bool(comparison.shadow_refused)
        if comparison.similarity is not None:
            self.similarities += 1
            self.similarity += comparison.similarity
        if comparison.structured_equal is not None:
            self.structured += 1
            self.structured_equal += comparison.structured_equal
        if comparison.judge is Preference.PRIMARY:
            self.primary += 1
        elif comparison.judge is Preference.SHADOW:
            self.shadow += 1
        elif comparison.judge is Preference.TIE:
            self.tie += 1

    def shown(self) -> dict[str, object]:
        return {
            "pairs": self.pairs,
            "shadow_failed": self.failed,
            "compared": self.compared,
            "exact": _share(self.exact, self.compared),
            "similarities": self.similarities,
            "similarity": _share(self.similarity, self.similarities),
            "structured": self.structured,
            "structured_equal": _share(self.structured_equal, self.structured),
            "primary_refused": _share(self.primary_refused, self.compared),
            "shadow_refused": _share(self.shadow_refused, self.compared),
            "judge": {"primary": self.primary, "shadow": self.shadow, "tie": self.tie},
        }


class RecentComparisons:
    """A `ComparisonSink` that keeps figures only: `KEPT` comparisons, and sums since the server started."""

    def __init__(self) -> None:
        self._recent: deque[Comparison] = deque(maxlen=KEPT)
        self._sums: dict[tuple[str, str, str], _Sum] = {}

    def compared(self, comparison: Comparison) -> None:
        self._recent.append(comparison)
        key = (comparison.policy, comparison.shadow_target, comparison.shadow.role.value)
        self._sums.setdefault(key, _Sum()).add(comparison)

    def shown(self) -> dict[str, object]:
        """What `GET /shadows` answers, newest comparison first."""
        return {
            "totals": [
                {"policy": policy, "shadow": shadow, "role": role, **total.shown()}
                for (policy, shadow, role), total in sorted(self._sums.items())
            ],
            "recent": [figures(comparison) for comparison in reversed(self._recent)],
        }


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
