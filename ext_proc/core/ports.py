"""What the neighbours of the core need from each other, as protocols, so that none imports another."""

from __future__ import annotations

from typing import Protocol

from ext_proc.core.observation import Comparison, Observation
from ext_proc.core.types import Message, Policy, Scores, Verdict


class Router(Protocol):
    """A routing model: conversation and policies in, a probability for each out."""

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        """Do whatever is done once per configuration, such as encoding the policies."""

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


class ObservationSink(Protocol):
    """Whoever wants to know of answers: metrics, the pair table, rollouts."""

    def observed(self, observation: Observation) -> None:
        """Take one answer's figures. Never raises, never waits: it runs on the event loop."""


class ComparisonSink(Protocol):
    """Whoever wants to know of compared answers."""

    def compared(self, comparison: Comparison) -> None:
        """Take one comparison. Never raises, never waits: it runs on the event loop."""


class Similarity(Protocol):
    """How near two texts are in meaning."""

    async def similarity(self, one: str, other: str) -> float | None:
        """The cosine of the texts' embeddings, in [-1, 1]. None when it cannot be had. Never raises."""
