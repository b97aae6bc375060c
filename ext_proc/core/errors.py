"""What can go wrong, as values where a request is concerned and as exceptions where a person is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Reason(StrEnum):
    """Why a request went where it went: the value of `x-arch-reason` and a metric label.

    The first group are decisions (`NO_CAPABLE_TARGET`: the policy's first target got the call, to tell
    the client itself what it cannot do); every other value means that the request went to the default
    target because something was missing, broken or late.
    """

    POLICY = "policy"
    PINNED = "pinned"
    ALIAS = "alias"
    DOMAIN = "domain"
    SESSION = "session"
    NO_POLICY_MATCHED = "no_policy_matched"
    UNSURE = "unsure"
    EMBEDDINGS = "embeddings"
    NO_CAPABLE_TARGET = "no_capable_target"

    NO_POLICIES = "no_policies"
    NO_CONVERSATION = "no_conversation"
    BODY_EMPTY = "body_empty"
    BODY_UNREADABLE = "body_unreadable"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_INTRICATE = "body_too_intricate"
    CONTENT_TYPE_UNSUPPORTED = "content_type_unsupported"
    ENCODING_UNSUPPORTED = "encoding_unsupported"
    ROUTER_BUSY = "router_busy"
    ROUTER_TIMEOUT = "router_timeout"
    ROUTER_UNREACHABLE = "router_unreachable"
    ROUTER_GARBLED = "router_garbled"
    ROUTER_ERROR = "router_error"
    INTERNAL_ERROR = "internal_error"

    @property
    def is_fallback(self) -> bool:
        """Whether the request went to the default target for want of a decision."""
        return self not in _DECIDED


_DECIDED = frozenset(
    {
        Reason.POLICY,
        Reason.PINNED,
        Reason.ALIAS,
        Reason.DOMAIN,
        Reason.SESSION,
        Reason.NO_POLICY_MATCHED,
        Reason.UNSURE,
        Reason.EMBEDDINGS,
        Reason.NO_CAPABLE_TARGET,
    }
)


class RouterError(Exception):
    """A router could not answer. `reason` is one of the `ROUTER_*` members; the text names no content."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class StoreFailure(StrEnum):
    """Why a rollout store did not do what it was asked: a metric label."""

    CONFLICT = "conflict"
    FENCED = "fenced"
    LOCKED = "locked"
    FULL = "full"
    CORRUPT = "corrupt"
    READ_ONLY = "read_only"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    OTHER = "other"


class StoreError(Exception):
    """A rollout store did not do what it was asked. The text names no address: it may hold a password."""

    def __init__(self, failure: StoreFailure, text: str) -> None:
        super().__init__(text)
        self.failure = failure


class CommandRefused(Exception):
    """A command to a rollout that can do nothing now. The text says why, for whoever gave it."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in a configuration file. `line` and `column` count from 1."""

    path: str
    line: int
    column: int
    text: str
    hint: str
    is_warning: bool = False

    def __str__(self) -> str:
        kind = "warning: " if self.is_warning else ""
        hint = f" — {self.hint}" if self.hint else ""
        return f"{self.path}:{self.line}:{self.column}: {kind}{self.text}{hint}"


class ConfigError(Exception):
    """A configuration that cannot be used. `problems` holds everything found, in file order.

    `read` has the files it was read from, each with a digest, None for one that could not be read.
    """

    def __init__(
        self, problems: tuple[Problem, ...], read: Mapping[Path, bytes | None] | None = None
    ) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        self.read = read or {}
