"""Fit "none of them" and the temperature: `python -m training.calibrate DATASETS_DIR/dev`.

One value each for all sets: the point with the best mean turn accuracy, then the temperature with the
lowest mean log loss; each set counts the same, whatever its size. Writes them into the weights'
settings. Run it after an export of other weights.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ext_proc.router.cases import Case
from ext_proc.router.embedded.tuning import SETTINGS_FILE, SHIPPED, read_tuning
from training.evaluate import SETS, decide, read_set

_LEFT_OUT = "smoke"
"""Too small, and mostly one odd configuration."""
_TEMPERATURES = np.geomspace(0.01, 0.3, 69)
_POINTS = np.arange(-20, 31) / 100


@dataclass(frozen=True, slots=True)
class _Answers:
    """One set: the logits times the temperature, "none of them" last, and the right index of each."""

    cosines: list[NDArray[np.float64]]
    gold: list[int]

    def accuracy(self, shift: float) -> float:
        return fmean(
            (int(np.argmax(row[:-1])) if row[:-1].max() > row[-1] + shift else len(row) - 1) == gold
            for row, gold in zip(self.cosines, self.gold, strict=True)
        )

    def log_loss(self, shift: float, temperature: float) -> float:
        losses = []
        for row, gold in zip(self.cosines, self.gold, strict=True):
            logits = np.append(row[:-1], row[-1] + shift) / temperature
            losses.append(float(np.logaddexp.reduce(logits) - logits[gold]))
        return fmean(losses)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="folder with the *.jsonl sets")
    parser.add_argument("--every", type=int, default=1, help="take each N-th case, to be quick")
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    options = parser.parse_args(arguments)
    tuning = read_tuning(options.weights)
    names = [name for name in SETS if name != _LEFT_OUT]
    sets = [
        _answers(read_set(options.directory, name, options.every), options.weights, tuning.temperature)
        for name in names
    ]
    shifts = _POINTS - tuning.none_point
    shift = max(shifts, key=lambda shift: fmean(answers.accuracy(shift) for answers in sets))
    temperature = min(
        _TEMPERATURES, key=lambda value: fmean(answers.log_loss(shift, value) for answers in sets)
    )
    found = {"none_point": round(tuning.none_point + shift, 3), "temperature": round(float(temperature), 4)}
    path: Path = options.weights / SETTINGS_FILE
    settings = json.loads(path.read_text(encoding="utf-8")) | found
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found))
    return 0


def _answers(cases: Sequence[Case], weights: Path, temperature: float) -> _Answers:
    scores, _ = asyncio.run(decide(cases, weights))
    # Softmax is undone up to a constant, which changes neither a rank nor another softmax.
    cosines = [np.log(np.maximum([*row.per_policy, row.none], 1e-300)) * temperature for row in scores]
    return _Answers(cosines, [_gold_index(case) for case in cases])


def _gold_index(case: Case) -> int:
    names: list[str | None] = [*(policy.name for policy in case.policies), None]
    return names.index(case.gold)


if __name__ == "__main__":
    sys.exit(main())
