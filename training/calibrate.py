"""Fit "none of them" and the temperature: `python -m training.calibrate DATASETS_DIR`.

On policy sets drawn from the tasks that training held out, never on the evaluation files: the shift of
the logit of none and the temperature with the least log loss. Each source counts the same, and cases
weigh as if none were right in `_NONE_SHARE` of them. Writes both into the weights' settings, and prints
what the router reaches on those sets.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ext_proc.router.embedded.encoder import Encoder
from ext_proc.router.embedded.scoring import Asked, asked_of, build_policy_set, policy_logits
from ext_proc.router.embedded.tuning import SETTINGS_FILE, SHIPPED, Tuning, read_tuning
from ext_proc.router.embedded.turns import choose_turns
from training.batches import Batch, draw_from
from training.corpus import Corpus, read_corpus

_NONE_SHARE = 0.25
"""More than the fifth that a gateway may see: to route what no policy covers costs more than to leave what
one does to the default."""
BATCHES = {"synthetic": 16, "tasks": 10, "hwu64": 10, "banking77": 8, "sgd": 8, "mmlu": 3}
_SHIFTS = np.arange(-40, 41) / 10
_TEMPERATURES = np.geomspace(0.4, 4.0, 24)

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """Cases of one source. Shapes: `logits` [cases, policies + 1], "none of them" last; `gold` [cases]."""

    logits: list[Numbers]
    gold: list[int]

    def log_loss(self, shift: float, temperature: float) -> float:
        """Mean over the cases, weighted to the share of none."""
        losses: dict[bool, list[float]] = {True: [], False: []}
        for row, right in zip(self.logits, self.gold, strict=True):
            shifted = row.copy()
            shifted[-1] += shift
            shifted /= temperature
            losses[right == len(row) - 1].append(float(np.logaddexp.reduce(shifted) - shifted[right]))
        return _NONE_SHARE * fmean(losses[True]) + (1 - _NONE_SHARE) * fmean(losses[False])

    def shares(self, shift: float) -> tuple[float, float]:
        """Right where a policy fits, and where none does."""
        hits: dict[bool, list[bool]] = {True: [], False: []}
        for row, right in zip(self.logits, self.gold, strict=True):
            shifted = row.copy()
            shifted[-1] += shift
            hits[right == len(row) - 1].append(int(shifted.argmax()) == right)
        return fmean(hits[False]), fmean(hits[True])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", type=Path, help="folder with train/")
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    options = parser.parse_args(arguments)
    calibrate(read_corpus(options.datasets / "train"), options.weights)
    return 0


def calibrate(corpus: Corpus, weights: Path) -> None:
    """Fit, write into the settings, and say what was found."""
    tuning = read_tuning(weights)
    encoder = Encoder(weights, tuning)
    sets = {}
    for source, count in BATCHES.items():
        batches = [
            draw_from(corpus, source, random.Random(f"calibrate/{source}/{number}"), held_out=True)
            for number in range(count)
        ]
        sets[source] = _answers(encoder, tuning, batches)
    shift, temperature = fit(list(sets.values()))
    path = weights / SETTINGS_FILE
    found = {"none_shift": round(shift, 2), "temperature": round(temperature, 3)}
    settings = json.loads(path.read_text(encoding="utf-8")) | found
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found))
    print("| held out of | cases | fits: right | none: recall |\n|---|---|---|---|")
    for source, answers in sets.items():
        fits, none = answers.shares(shift)
        print(f"| {source} | {len(answers.gold)} | {fits * 100:.1f} | {none * 100:.1f} |")


def fit(sets: Sequence[Answers]) -> tuple[float, float]:
    """Shift and temperature of the least mean log loss, in two passes."""
    shift, temperature = 0.0, 1.0
    for _ in range(3):
        at = temperature
        shift = min(map(float, _SHIFTS), key=lambda value: fmean(each.log_loss(value, at) for each in sets))
        now = shift
        temperature = min(
            map(float, _TEMPERATURES), key=lambda value: fmean(each.log_loss(now, value) for each in sets)
        )
    return shift, temperature


def _answers(encoder: Encoder, tuning: Tuning, batches: Sequence[Batch]) -> Answers:
    logits, gold = [], []
    for batch in batches:
        policies = [_policy(encoder, texts) for texts in batch.all_texts]
        for row, messages in enumerate(batch.conversations):
            keep = batch.allowed[row]
            asked = [policy for policy, kept in zip(policies, keep[:-1], strict=True) if kept]
            found = encoder.conversation(choose_turns(messages, tuning))
            scored = policy_logits(found, build_policy_set(asked), tuning) if asked else np.zeros(0)
            logits.append(np.append(scored, found.none))
            gold.append(int(keep[: batch.gold[row]].sum()))
    return Answers(logits, gold)


def _policy(encoder: Encoder, texts: Sequence[str]) -> Asked:
    """As the engine states it, but from the texts that the corpus has."""
    return asked_of([encoder.policy(text) for text in texts])


if __name__ == "__main__":
    sys.exit(main())
