"""An observed answer as JSON's types, and back: it goes from the worker that saw it to one that compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ext_proc.core.observation import Observation, Role
from ext_proc.core.reply import Reply, ToolCall
from ext_proc.core.watching import Answer, Subject


def fields_of(answer: Answer) -> dict[str, Any]:
    """Texts included. Half a surrogate pair, which JSON may carry, becomes a question mark."""
    fields: dict[str, Any] = _clean(asdict(answer))
    return fields


def answer_of(fields: Mapping[str, Any]) -> Answer:
    subject, observation, reply = fields["subject"], fields["observation"], fields["reply"]
    return Answer(
        Subject(**{**subject, "role": Role(subject["role"])}),
        Observation(**{**observation, "role": Role(observation["role"])}),
        None
        if reply is None
        else Reply(reply["text"], tuple(ToolCall(**tool) for tool in reply["tools"]), reply["refused"]),
        fields["question"],
    )


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value
