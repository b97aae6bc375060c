"""What the neighbours of the core need from each other, as protocols, so that none imports another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ext_proc.core.observation import Comparison, Observation
from ext_proc.core.rollout_types import Command
from ext_proc.core.types import Caller, Decision, Dialect, LlmCall, Message, Policy, Scores, Verdict
from ext_proc.core.watching import Answer


class Router(Protocol):
    """A routing model: conversation and policies in, a probability for each out."""

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        """Do whatever is done once per configuration, such as encoding the policies."""

    async def forget(self, policies: tuple[Policy, ...]) -> None:
        """Let go of what was prepared for these: no configuration has them any more."""

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        """Score a conversation whose last user message wants an answer.

        Shapes: messages in order, at least one; policies at least one, prepared or not.
        Errors: RouterError. The caller owns the deadline and may cancel.
        """

    async def close(self) -> None:
        """Free what the router holds. No call follows."""


class Asker(Protocol):
    """A router made safe for the request path."""

    async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        """Ask within the deadline. Never raises: a failure is a verdict too."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was decided for a user's message: a policy's name, None for none of them."""

    policy: str | None


class Sessions(Protocol):
    """Remembers for a while where users' messages went, by the keys of `affinity.memory_keys`."""

    def recall(self, key: bytes) -> Kept | None:
        """What was kept last. Never raises, never waits: it runs on the event loop."""

    def keep(self, key: bytes, kept: Kept) -> None:
        """Keep this in place of what was there. Never raises, never waits."""


class Recorder(Protocol):
    """Whoever writes decisions down."""

    def record(
        self,
        call: LlmCall,
        policies: tuple[Policy, ...],
        verdict: Verdict,
        decision: Decision,
        caller: Caller,
    ) -> None:
        """Take one decision. Never raises, never waits: it runs on the event loop."""


class ObservationSink(Protocol):
    """Whoever wants to know of answers: metrics, the pair table, rollouts."""

    def observed(self, observation: Observation) -> None:
        """Take one answer's figures. Never raises, never waits: it runs on the event loop."""


class AnswerSink(Protocol):
    """Whoever compares answers."""

    def answered(self, answer: Answer) -> None:
        """Take one answer, its contents too. Never raises, never waits: it runs on the event loop."""


class ComparisonSink(Protocol):
    """Whoever wants to know of compared answers."""

    def compared(self, comparison: Comparison) -> None:
        """Take one comparison. Never raises, never waits: it runs on the event loop."""


class Similarity(Protocol):
    """How near two texts are in meaning."""

    async def similarity(self, one: str, other: str) -> float | None:
        """The cosine of the texts' embeddings, in [-1, 1]. None when it cannot be had. Never raises."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A rollout's state as it is stored: JSON text. `version` counts its writes from 1."""

    document: str
    version: int


class RolloutStore(Protocol):
    """Where rollouts are kept: their states, their histories, and who of several replicas may write.

    All texts are JSON that the store does not read. Every method ends within a few seconds and raises
    nothing but `StoreError`.
    """

    async def load(self) -> Mapping[str, Stored]:
        """Every state, by policy."""

    async def save(
        self, policy: str, document: str, events: tuple[str, ...], *, expected: int, token: int
    ) -> int:
        """Write a state and what led to it, both or neither; the new version.

        `expected` is the version that this one replaces, 0 for none; `token` that of the lease.
        Errors: StoreError, with CONFLICT when another version is there, FENCED when a later lease was given.
        """

    async def history(self, policy: str, limit: int) -> tuple[str, ...]:
        """The last events of a policy, the oldest first."""

    async def revision(self) -> int:
        """A number that changes with every save: what a follower polls."""

    async def acquire(self, holder: str, ttl_s: float) -> int | None:
        """Take or renew the right to write: its fencing token, or None while another holds it."""

    async def release(self, holder: str) -> None:
        """Give the right to write back, if it is held."""

    async def send(self, message: str) -> None:
        """Leave a message for whoever holds the lease. Old ones are dropped when nobody reads them."""

    async def receive(self) -> tuple[str, ...]:
        """Take the messages, the oldest first. Each is taken once."""

    async def close(self) -> None:
        """Free what the store holds. No call follows."""


class CommandResult(StrEnum):
    """What became of a command: done, told to the replica that leads, or waiting for the store."""

    DONE = "done"
    SENT = "sent"
    WAITING = "waiting"


class Explainer(Protocol):
    """Whoever says what would be decided for a request."""

    async def __call__(self, body: bytes, dialect: Dialect, session: str | None) -> Mapping[str, Any]:
        """What `core.explanation` makes of it. Errors: none for a body that can be read or cannot."""


class RolloutControl(Protocol):
    """What the admin API needs of whoever drives the rollouts. Reports are JSON's types."""

    def policies(self) -> tuple[str, ...]:
        """The policies that have a rollout, in the file's order."""

    def replica(self) -> Mapping[str, Any]:
        """Who answers, whether it leads, and what is wrong with the store, if anything."""

    def report(self, policy: str) -> Mapping[str, Any]:
        """Everything about one of `policies()`."""

    async def history(self, policy: str, limit: int) -> tuple[str, ...]:
        """The last events as JSON texts, the oldest first. Errors: StoreError."""

    async def command(self, policy: str, command: Command) -> CommandResult:
        """Do what a person says. Errors: CommandRefused."""
