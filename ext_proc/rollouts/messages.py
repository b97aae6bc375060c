"""What replicas tell the one that drives the rollouts: JSON through the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ext_proc.core.rollout_json import StateError, as_plain, check_window, from_plain
from ext_proc.core.rollout_plan import Breach
from ext_proc.core.rollout_types import Command, WindowCounts


@dataclass(frozen=True, slots=True)
class Message:
    """One or more things about one policy's rollout. `run` is the one that a breach was seen in."""

    policy: str
    run: int = 0
    exposed: int = 0
    window: WindowCounts | None = None
    breach: Breach | None = None
    command: Command | None = None


def write(message: Message) -> str:
    return json.dumps(as_plain(message), separators=(",", ":"))


def read(text: str) -> Message:
    """Errors: StateError: a replica of another version may have written it."""
    try:
        plain: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise StateError("message: not JSON") from None
    message = from_plain(Message, plain, "message")
    if message.window is not None:
        check_window(message.window, "message.window")
    return message
