"""Measures for a person's eyes, and for a program's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ext_proc.core.verdict import confidence
from ext_proc.evaluation.cases import Case
from ext_proc.evaluation.measures import BINS, Confusion, Measures, PolicyMeasures
from ext_proc.evaluation.trials import Trial

MAX_POLICIES = 20
MAX_CONFUSIONS = 8
_EXCERPT_CHARS = 100


def as_json(measures: Measures) -> dict[str, Any]:
    """One object; shares from 0 to 1, null where undefined."""
    return {
        "n": measures.n,
        "conversations": measures.conversations,
        "spans": measures.spans,
        "turn_accuracy": measures.turn_accuracy,
        "span_accuracy": measures.span_accuracy,
        "conversation_accuracy": measures.conversation_accuracy,
        "in_set_accuracy": measures.in_set_accuracy,
        "other_recall": measures.other_recall,
        "other_precision": measures.other_precision,
        "fqfa": measures.fqfa,
        "fqca": measures.fqca,
        "irrelevance": measures.irrelevance,
        "ece": measures.ece,
        "latency_ms": {"p50": measures.p50_ms, "p99": measures.p99_ms},
        "reliability": [
            {"from": bin_.low, "n": bin_.n, "confidence": bin_.confidence, "accuracy": bin_.accuracy}
            for bin_ in measures.reliability
        ],
        "policies": [
            {
                "name": row.name,
                "n": row.gold,
                "said": row.said,
                "precision": row.precision,
                "recall": row.recall,
            }
            for row in measures.policies
        ],
        "confusions": [
            {"gold": pair.first.name, "said": pair.second.name, "n": pair.n, "back": pair.back}
            for pair in measures.confusions
        ],
        "failures": dict(measures.failures),
    }


def as_text(measures: Measures) -> str:
    lines = [
        f"{_count(measures.n, 'user turn')}, {_count(measures.spans, 'span')},"
        f" {_count(measures.conversations, 'conversation')}",
        "",
        *_shares(measures),
        f"time           {_ms(measures.p50_ms)} p50, {_ms(measures.p99_ms)} p99 a decision",
    ]
    if measures.failures:
        counts = ", ".join(f"{n} × {reason}" for reason, n in measures.failures)
        lines.append(f"failures       {counts}; none of them counts as right")
    lines += ["", *_calibration(measures), "", *_policies(measures.policies)]
    if measures.confusions:
        lines += ["", *_confusions(measures.confusions)]
    return "\n".join(lines)


def errors(trials: Sequence[Trial], most: int) -> str:
    """The wrong decisions, the surest first: what is wrong with policies or labels shows there."""
    wrong = sorted(
        (trial for trial in trials if not trial.is_right), key=lambda trial: -confidence(trial.verdict)
    )
    lines = [f"wrong decisions, the surest first ({min(most, len(wrong))} of {len(wrong)})"]
    for trial in wrong[:most]:
        said = f"{trial.said} {confidence(trial.verdict):.2f}"
        lines.append(f"  {trial.case.id}: {said}, not {trial.case.gold}: {excerpt(trial.case)}")
    return "\n".join(lines)


def excerpt(case: Case) -> str:
    """The beginning of the message that was to be routed, on one line."""
    text = next((message.text for message in reversed(case.messages) if message.role == "user"), "")
    line = "".join(char if char.isprintable() else " " for char in " ".join(text.split()))
    return f"“{line}”" if len(line) <= _EXCERPT_CHARS else f"“{line[:_EXCERPT_CHARS]}…”"


def percent(share: float | None) -> str:
    return "     –" if share is None else f"{share * 100:5.1f} %"


def _shares(measures: Measures) -> Iterable[str]:
    rest = measures.n - measures.in_set
    yield f"right        {percent(measures.turn_accuracy)}  of all turns"
    if measures.spans:
        yield f"             {percent(measures.span_accuracy)}  of spans, a run of turns with one label"
        yield f"             {percent(measures.conversation_accuracy)}  of whole conversations"
    else:
        yield "                  –  of spans and conversations: the file names none"
    fits, none = f"{measures.in_set} turns that a policy fits", f"{rest} that none fits"
    yield f"             {percent(measures.in_set_accuracy)}  of the {fits}"
    precision = percent(measures.other_precision).strip()
    yield f"             {percent(measures.other_recall)}  of the {none} (irrelevance); precision {precision}"
    if measures.fqfa is None and measures.fqca is None:
        yield "fQfA, fQcA        –  no policy has a domain: actions and domains are not told apart"
    else:
        yield f"fQfA         {percent(measures.fqfa)}  where the policy is an action in a domain"
        yield f"fQcA         {percent(measures.fqca)}  where the policy is a whole domain"


def _calibration(measures: Measures) -> Iterable[str]:
    if measures.ece is None:
        return
    yield f"calibration  expected error {measures.ece:.3f}"
    yield "  confidence   turns    sure   right"
    for bin_ in measures.reliability:
        edges = f"{bin_.low:.1f}–{bin_.low + 1 / BINS:.1f}"
        yield f"  {edges:<10} {bin_.n:>7} {percent(bin_.confidence)} {percent(bin_.accuracy)}"


def _policies(rows: Sequence[PolicyMeasures]) -> Iterable[str]:
    """Those that lose most turns first."""
    shown = sorted(rows, key=lambda row: row.both - row.gold + row.both - row.said)[:MAX_POLICIES]
    width = max((len(row.name) for row in shown), default=0)
    more = f", the {MAX_POLICIES} with most errors of {len(rows)}" if len(rows) > MAX_POLICIES else ""
    yield f"{'policies':<{width + 2}}   turns  recall  precision{more}"
    for row in shown:
        yield f"  {row.name:<{width}} {row.gold:>7} {percent(row.recall)}  {percent(row.precision)}"


def _confusions(pairs: Sequence[Confusion]) -> Iterable[str]:
    more = f" ({MAX_CONFUSIONS} of {len(pairs)} pairs)" if len(pairs) > MAX_CONFUSIONS else ""
    yield f"confusions{more}"
    for pair in pairs[:MAX_CONFUSIONS]:
        first, second = pair.first.name, pair.second.name
        back = f", {pair.back} the other way" if pair.back else ""
        yield (
            f'  these two descriptions overlap: "{first}" was taken for "{second}"'
            f" {_count(pair.n, 'time')}{back}"
        )
        yield f"    {first}: {pair.first.description}"
        yield f"    {second}: {pair.second.description}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"
