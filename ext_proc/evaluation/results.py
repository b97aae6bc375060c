"""Trials to a file, to be compared with later ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ext_proc.core import record
from ext_proc.evaluation.cases import POLICY_SETS, Case
from ext_proc.evaluation.trials import Trial


def save(trials: Sequence[Trial], path: Path) -> None:
    """Write a case file with the decisions in `decided`, and the policies beside it. Errors: OSError."""
    names: dict[int, str] = {}
    with path.open("w", encoding="utf-8") as lines:
        for trial in trials:
            policies = trial.case.policies
            if id(policies) not in names:
                names[id(policies)], text = record.policy_set_of(policies)
                folder = path.parent / POLICY_SETS
                folder.mkdir(exist_ok=True)
                (folder / f"{names[id(policies)]}.yaml").write_text(text, encoding="utf-8")
            row = _row(trial.case, names[id(policies)]) | {"decided": _decided(trial)}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def _row(case: Case, policy_set: str) -> dict[str, Any]:
    fields = {"id": case.id, "conversation_id": case.conversation, "span_id": case.span, "gold": case.gold}
    messages = [{"role": message.role, "content": message.text} for message in case.messages]
    known = {key: value for key, value in fields.items() if value is not None}
    return {**known, "policy_set": policy_set, "messages": messages}


def _decided(trial: Trial) -> dict[str, Any]:
    ms = {} if trial.seconds is None else {"ms": round(trial.seconds * 1000, 3)}
    return record.decided_of(trial.verdict) | ms
