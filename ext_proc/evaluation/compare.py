"""Two deciders on the same cases: how far they differ, how sure that is, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ext_proc.core.types import Message
from ext_proc.core.verdict import confidence
from ext_proc.evaluation.measures import Measures, measure
from ext_proc.evaluation.paired import CONFIDENCE, Difference, difference
from ext_proc.evaluation.report import excerpt, percent
from ext_proc.evaluation.trials import Trial

FINE = 0.05
"""Half an interval that is wider can miss a difference that matters."""

_Key = tuple[str, tuple[Message, ...], int]


@dataclass(frozen=True, slots=True)
class Pair:
    """One case and what both said of it."""

    first: Trial
    second: Trial

    @property
    def is_flipped(self) -> bool:
        return self.first.said != self.second.said

    @property
    def gain(self) -> int:
        """1 where only the second is right, -1 where only the first is."""
        return int(self.second.is_right) - int(self.first.is_right)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`first`, `second` and `difference` are None when the cases are not labelled."""

    names: tuple[str, str]
    pairs: tuple[Pair, ...]
    first: Measures | None
    second: Measures | None
    difference: Difference | None

    @property
    def flipped(self) -> tuple[Pair, ...]:
        """The cases that are decided otherwise: first those that got worse, then those that got better."""
        return tuple(
            sorted((pair for pair in self.pairs if pair.is_flipped), key=lambda pair: pair.gain or 2)
        )

    @property
    def agreement(self) -> float:
        return 1 - len(self.flipped) / len(self.pairs) if self.pairs else 1.0


def compare(names: tuple[str, str], first: Sequence[Trial], second: Sequence[Trial]) -> Comparison:
    """Compare two series of trials on the cases that both have."""
    known = dict(_by_case(second))
    pairs = tuple(Pair(trial, known[key]) for key, trial in _by_case(first) if key in known)
    labelled = bool(pairs) and all(pair.first.case.gold and pair.second.case.gold for pair in pairs)
    if not labelled:
        return Comparison(names, pairs, None, None, None)
    before, after = [pair.first for pair in pairs], [pair.second for pair in pairs]
    found = difference(
        [trial.is_right for trial in before],
        [trial.is_right for trial in after],
        [trial.case.conversation for trial in before],
    )
    return Comparison(names, pairs, measure(before), measure(after), found)


def _by_case(trials: Sequence[Trial]) -> Iterator[tuple[_Key, Trial]]:
    """Trials by what tells their cases apart; the n-th of equal cases is the n-th."""
    seen: Counter[tuple[str, tuple[Message, ...]]] = Counter()
    for trial in trials:
        key = trial.case.id, trial.case.messages
        yield (*key, seen[key]), trial
        seen[key] += 1


def as_json(comparison: Comparison) -> dict[str, Any]:
    found = comparison.difference
    return {
        "names": list(comparison.names),
        "n": len(comparison.pairs),
        "agreement": comparison.agreement,
        "turn_accuracy": [measures and measures.turn_accuracy for measures in _both(comparison)],
        "difference": found
        and {
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "confidence": CONFIDENCE,
            "p_value": found.p_value,
            "method": found.method,
            "is_shown": found.is_shown,
        },
        "flipped": [
            {
                "id": pair.first.case.id,
                "gold": pair.first.case.gold,
                "first": pair.first.said,
                "second": pair.second.said,
                "gain": pair.gain,
            }
            for pair in comparison.flipped
        ],
    }


def as_text(comparison: Comparison, most: int) -> str:
    """For people; `most` of the flipped cases."""
    lines = [f"A: {comparison.names[0]}", f"B: {comparison.names[1]}", ""]
    lines += _table(comparison)
    if comparison.difference is not None:
        lines += ["", *_said(comparison.difference, len(comparison.pairs))]
    flipped = comparison.flipped
    lines += ["", f"{len(flipped)} of {len(comparison.pairs)} decisions flip"]
    lines += [f"  {_flip(pair)}" for pair in flipped[:most]]
    if len(flipped) > most:
        lines.append(f"  … and {len(flipped) - most} more: --errors N lists more of them")
    return "\n".join(lines)


def _both(comparison: Comparison) -> tuple[Measures | None, Measures | None]:
    return comparison.first, comparison.second


def _table(comparison: Comparison) -> Iterator[str]:
    first, second = comparison.first, comparison.second
    if first is None or second is None:
        share = percent(comparison.agreement)
        yield f"same decision  {share}  of {len(comparison.pairs)} turns, which nobody labelled"
        return
    yield f"{len(comparison.pairs)} user turns        A        B"
    rows = (
        ("right", first.turn_accuracy, second.turn_accuracy),
        ("spans", first.span_accuracy, second.span_accuracy),
        ("conversations", first.conversation_accuracy, second.conversation_accuracy),
        ("where one fits", first.in_set_accuracy, second.in_set_accuracy),
        ("where none fits", first.other_recall, second.other_recall),
    )
    for label, before, after in rows:
        yield f"  {label:<16} {percent(before)}  {percent(after)}"
    yield f"  {'calibration':<16} {_error(first.ece)}  {_error(second.ece)}"


def _said(found: Difference, turns: int) -> Iterator[str]:
    verdict = "no difference is shown"
    if found.is_shown:
        verdict = "B is better" if found.value > 0 else "B is worse"
    sure = "" if found.p_value is None else f", p = {found.p_value:.3g}"
    interval = f"{found.low * 100:+.1f} to {found.high * 100:+.1f}"
    yield f"{verdict}: B − A = {found.value * 100:+.1f} points, {CONFIDENCE:.0%} interval {interval}{sure}"
    yield f"  ({found.method})"
    reach = (found.high - found.low) / 2
    if not found.is_shown and reach > FINE:
        points = f"{reach * 100:.0f} points"
        yield f"  {turns} turns show only large differences, here of some {points}: label more"


def _flip(pair: Pair) -> str:
    case = pair.first.case
    change = f"{case.id}: {_sure(pair.first)} → {_sure(pair.second)}"
    if case.gold is None:
        return f"{change}: {excerpt(case)}"
    what = {1: "better", -1: "worse ", 0: "wrong "}[pair.gain]
    return f"{what} {change}, gold {case.gold}: {excerpt(case)}"


def _sure(trial: Trial) -> str:
    return f"{trial.said} {confidence(trial.verdict):.2f}"


def _error(ece: float | None) -> str:
    return "      –" if ece is None else f"{ece:7.3f}"
