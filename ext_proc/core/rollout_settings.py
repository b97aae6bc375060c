"""What the file says of rollouts besides their plans: where they are kept, whom they ask and tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ext_proc.core.rollout_plan import Hook, RolloutPlan
from ext_proc.core.types import Secret

DEFAULT_STORE = "arch-rollouts.sqlite"
MEMORY_STORE = "memory"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Whom to ask over HTTP. The URL is secret too: those of chat systems hold their key in the path."""

    url: Secret
    token: Secret | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class PrometheusCheck:
    """Passes while every value of the query's answer lies within the bounds; None: not bounded there."""

    name: str
    endpoint: Endpoint
    query: str
    least: float | None
    most: float | None


@dataclass(frozen=True, slots=True)
class WebhookCheck:
    """Passes as the endpoint says; a score passes from `least` up."""

    name: str
    endpoint: Endpoint
    least: float | None


Check = PrometheusCheck | WebhookCheck


@dataclass(frozen=True, slots=True)
class PolicyRollout:
    """One policy's rollout, from the model it has. `hooks` are asked, `listeners` get every event."""

    plan: RolloutPlan
    baseline: str = ""
    hooks: Mapping[Hook, tuple[Endpoint, ...]] = field(default_factory=dict)
    listeners: tuple[Endpoint, ...] = ()
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """`store`: a file's path, a Redis URL (`redis://`, `rediss://`, `unix://`) or `memory`.

    `namespace` keeps apart the meshes that share one Redis. `lease_s`: how long after its death another
    replica takes over from the one that drives the rollouts.
    """

    policies: Mapping[str, PolicyRollout] = field(default_factory=dict)
    store: Secret = field(default_factory=lambda: Secret(DEFAULT_STORE))
    namespace: str = "default"
    lease_s: float = 5.0
