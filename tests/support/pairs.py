"""Answers to pair and compare, with defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ext_proc.core.observation import Observation, Role
from ext_proc.core.reply import Reply
from ext_proc.core.watching import Answer, Subject


def an_answer(
    role: Role = Role.PRIMARY,
    text: str | None = "It rains.",
    *,
    pair: str = "pair",
    copies: int = 1,
    target: str = "",
    question: str | None = None,
    **changes: Any,
) -> Answer:
    """One answer; `changes` are the observation's, `text` None stands for contents that were not kept."""
    target = target or ("a/one" if role is Role.PRIMARY else "b/two")
    copies = copies if role is Role.PRIMARY else 0
    subject = Subject(role, "id", pair, "coding", "baseline", target, copies)
    observation = Observation("id", "coding", "baseline", target, role, 200, 1.0, 5.0)
    reply = None if text is None else Reply(text)
    return Answer(subject, replace(observation, **changes), reply, question)
