"""Fit "none of them" and the temperature: `python -m training.calibrate DATASETS_DIR`.

Never on the evaluation files. How the logit of none grows with the number of policies is fitted on policy
sets of trained tasks, because only those make large sets; its shift and the temperature on sets of the
tasks that training held out, because trained ones look too easy. The temperature falls with the number of
policies as suits all sources best when each has one of its own, and is the geometric mean of those. None
stands against the best policy, and cases weigh as if none were right in `_NONE_SHARE` of them, each source
the same. Writes all four into the weights' settings, and prints what the router reaches on the tasks held
out.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ext_proc.router.embedded.encoder import Encoder
from ext_proc.router.embedded.scoring import asked_of, build_policy_set, idleness, policy_logits
from ext_proc.router.embedded.tuning import SETTINGS_FILE, SHIPPED, Tuning, read_tuning
from ext_proc.router.embedded.turns import choose_turns
from training import card
from training.batches import Batch, draw_from
from training.corpus import Corpus, read_corpus

_NONE_SHARE = 0.3
"""More than the fifth that a gateway may see: to route what no policy covers costs more than to leave what
one does to the default."""
BATCHES = {
    "synthetic": 16,
    "configurations": 16,
    "tasks": 10,
    "hwu64": 10,
    "banking77": 8,
    "sgd": 8,
    "mmlu": 3,
}

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """What is fitted: the fields of `Tuning` of these names."""

    none_shift: float
    none_growth: float
    temperature: float
    temperature_decline: float = 0.0

    def temperature_among(self, policies: int) -> float:
        """As `Tuning` has it."""
        found: float = self.temperature * max(policies, 1) ** -self.temperature_decline
        return found


@dataclass(frozen=True)
class Answers:
    """Cases of one source. Shapes: `logits` [cases, policies + 1], "none of them" last; `gold` [cases]."""

    logits: list[Numbers]
    gold: list[int]

    def moved(self, fitted: Fitted) -> Iterator[tuple[Numbers, int, bool]]:
        """Logits, what is right, and whether that is none."""
        for row, right in zip(self.logits, self.gold, strict=True):
            policies = len(row) - 1
            moved = row.copy()
            moved[-1] += fitted.none_shift + fitted.none_growth * math.log(max(policies, 1))
            yield moved / fitted.temperature_among(policies), right, right == policies

    def loss(self, fitted: Fitted) -> float:
        """Mean log loss over the cases, weighted to the share of none."""
        losses: dict[bool, list[float]] = {True: [], False: []}
        for row, right, none in self.moved(fitted):
            losses[none].append(float(np.logaddexp.reduce(row) - row[right]))
        return _weighed(losses)

    def loss_of_none(self, fitted: Fitted) -> float:
        """The same of none against the best policy alone, where that is right or none is."""
        losses: dict[bool, list[float]] = {True: [], False: []}
        for row, right, none in self.moved(fitted):
            if len(row) > 1 and (none or row[:-1].argmax() == right):
                lead = float(row[:-1].max() - row[-1])
                losses[none].append(float(np.logaddexp(0, lead if none else -lead)))
        return _weighed(losses)

    def shares(self, fitted: Fitted) -> tuple[float, float]:
        """Right where a policy fits, and where none does."""
        hits: dict[bool, list[bool]] = {True: [], False: []}
        for row, right, none in self.moved(fitted):
            hits[none].append(int(row.argmax()) == right)
        return fmean(hits[False]), fmean(hits[True])


def _weighed(losses: dict[bool, list[float]]) -> float:
    return _NONE_SHARE * fmean(losses[True]) + (1 - _NONE_SHARE) * fmean(losses[False])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("datasets", type=Path, help="folder with train/")
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    parser.add_argument("--batches", type=int, help="of each source, at most: to be quick")
    options = parser.parse_args(arguments)
    calibrate(read_corpus(options.datasets / "train"), options.weights, options.batches)
    return 0


def calibrate(corpus: Corpus, weights: Path, most: int | None = None) -> None:
    """Fit, write into the settings, and say what was found. `most` is the number of batches a source."""
    tuning = read_tuning(weights)
    encoder = Encoder(weights, tuning)
    held_out, trained = (
        {
            source: _answers(
                encoder,
                tuning,
                [
                    draw_from(
                        corpus, source, random.Random(f"calibrate/{source}/{number}"), held_out=held_out
                    )
                    for number in range(count)[:most]
                ],
            )
            for source, count in BATCHES.items()
        }
        for held_out in (True, False)
    )
    fitted = fit(list(held_out.values()), list(trained.values()))
    path = weights / SETTINGS_FILE
    found = {name: round(value, 3) for name, value in asdict(fitted).items()}
    settings = json.loads(path.read_text(encoding="utf-8")) | found
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found))
    rows = ["| held out of | cases | fits: right | none: recall |", "|---|---|---|---|"]
    for source, answers in held_out.items():
        fits, none = answers.shares(fitted)
        rows.append(f"| {source} | {len(answers.gold)} | {fits * 100:.1f} | {none * 100:.1f} |")
    table = "\n".join(rows)
    print(table)
    card.put(weights, "held out", table)


def fit(held_out: Sequence[Answers], trained: Sequence[Answers]) -> Fitted:
    """The values of the least loss, one after the other."""

    def none_of_trained(values: Numbers) -> float:
        return fmean(each.loss_of_none(Fitted(values[0], values[1], math.exp(values[2]))) for each in trained)

    growth = least(none_of_trained, (0.0, 0.0, 0.0))[1]

    def none_of_held_out(values: Numbers) -> float:
        return fmean(each.loss_of_none(Fitted(values[0], growth, math.exp(values[1]))) for each in held_out)

    shift = least(none_of_held_out, (0.0, 0.0))[0]

    def own(each: Answers, decline: float) -> tuple[float, float]:
        def loss(values: Numbers) -> float:
            return each.loss(Fitted(shift, growth, math.exp(values[0]), decline))

        found = least(loss, (0.0,))
        return found[0], loss(np.asarray(found))

    def with_own(values: Numbers) -> float:
        return fmean(own(each, values[0])[1] for each in held_out)

    # Each source its own, and then the mean: those of the largest losses would settle it otherwise.
    decline = least(with_own, (0.0,))[0]
    return Fitted(shift, growth, math.exp(fmean(own(each, decline)[0] for each in held_out)), decline)


def least(loss: Callable[[Numbers], float], first: Sequence[float]) -> list[float]:
    """Where a function is least, near `first`."""
    corners = np.vstack([first, np.asarray(first) + np.eye(len(first))])
    options = {"initial_simplex": corners, "xatol": 0.005, "fatol": 1e-5}
    found: list[float] = minimize(loss, first, method="Nelder-Mead", options=options).x.tolist()
    return found


def _answers(encoder: Encoder, tuning: Tuning, batches: Sequence[Batch]) -> Answers:
    logits, gold = [], []
    for batch in batches:
        policies = [
            asked_of([encoder.policy(text) for text in texts], [encoder.policy(text) for text in listed])
            for texts, listed in zip(batch.all_texts, batch.all_items, strict=True)
        ]
        for row, messages in enumerate(batch.conversations):
            keep = batch.allowed[row]
            asked = [policy for policy, kept in zip(policies, keep[:-1], strict=True) if kept]
            found = encoder.conversation(choose_turns(messages, tuning))
            scored = policy_logits(found, build_policy_set(asked), tuning) if asked else np.zeros(0)
            logits.append(np.append(scored, idleness(found)))
            gold.append(int(keep[: batch.gold[row]].sum()))
    return Answers(logits, gold)


if __name__ == "__main__":
    sys.exit(main())
