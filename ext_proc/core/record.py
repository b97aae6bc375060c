"""Decisions as lines of a case file, so that what was recorded can be measured, compared and replayed. Pure.

docs/evaluation.md describes the format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

from ext_proc.core.redact import shorten
from ext_proc.core.types import Message, Policy, Verdict

OTHER = "other"
MAX_MESSAGES = 16
"""The newest kept of a conversation: no router reads more."""
MAX_SCORES = 8
"""The likeliest kept of a decision."""
_ROLES = frozenset({"user", "assistant"})


def read_by_router(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The newest texts of users and assistants, shortened."""
    spoken = [message for message in messages if message.role in _ROLES and message.text]
    return tuple(Message(message.role, shorten(message.text)) for message in spoken[-MAX_MESSAGES:])


def decided_of(verdict: Verdict) -> dict[str, Any]:
    """A verdict as `decided` holds it."""
    if verdict.failure is not None:
        return {"failure": verdict.failure.value}
    likeliest = dict(sorted(verdict.scores, key=lambda pair: -pair[1])[:MAX_SCORES])
    return {
        "policy": OTHER if verdict.policy is None else verdict.policy,
        "scores": {name: round(score, 4) for name, score in verdict.scores if name in likeliest},
        "none": round(verdict.none, 4),
    }


def policy_set_of(policies: tuple[Policy, ...]) -> tuple[str, str]:
    """The name and the text of the file that holds these policies. The same policies have the same name."""
    rows = policies_of(policies)
    # JSON is YAML.
    text = json.dumps({"policies": rows}, ensure_ascii=False, indent=1) + "\n"
    return f"set-{blake2b(text.encode('utf-8', 'replace'), digest_size=6).hexdigest()}", text


def policies_of(policies: Iterable[Policy]) -> list[dict[str, Any]]:
    """Policies as a case file holds them."""
    return [
        {key: value for key, value in asdict(policy).items() if value or key in ("name", "description")}
        for policy in policies
    ]
