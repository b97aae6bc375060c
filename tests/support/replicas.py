"""Replicas that drive rollouts: a controller whose clock the test turns, its plans and its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from ext_proc.core.observation import Observation, Role
from ext_proc.core.ports import RolloutStore
from ext_proc.core.rollout_plan import Analysis, HardLimit, LimitKind, RolloutPlan, SetWeight
from ext_proc.core.rollout_settings import PolicyRollout, RolloutSettings
from ext_proc.core.rollout_types import RolloutState
from ext_proc.rollouts.controller import Controller
from ext_proc.rollouts.outside import Outside
from ext_proc.rollouts.sqlite_store import SqliteStore
from ext_proc.telemetry.rollouts import RolloutTelemetry

POLICY = "coding"
TARGET = "vllm/next"
LIMIT = HardLimit(LimitKind.CONSECUTIVE_ERRORS, 3)

_numbers = count()


def a_plan(**changes: Any) -> RolloutPlan:
    """5, 25 and 100 percent with analyses that need two answers and no metric."""
    given: dict[str, Any] = {
        "policy": POLICY,
        "canary": "canary",
        "target": TARGET,
        "steps": (SetWeight(500), Analysis(), SetWeight(2_500), Analysis(), SetWeight(10_000)),
        "interval_s": 0.0,
        "min_requests": 2,
        "metrics": (),
        "hard_limits": (LIMIT,),
    }
    return RolloutPlan(**{**given, **changes})


def settings_of(*rollouts: PolicyRollout, lease_s: float = 60.0) -> RolloutSettings:
    return RolloutSettings({one.plan.policy: one for one in rollouts}, lease_s=lease_s)


def an_answer(arm: str = "canary", *, policy: str = POLICY, status: int = 200, **changes: Any) -> Observation:
    number = next(_numbers)
    given: dict[str, Any] = {
        "request_id": f"r{number}",
        "policy": policy,
        "arm": arm,
        "target": TARGET if arm == "canary" else "vllm/present",
        "role": Role.PRIMARY,
        "status": status,
        "latency_s": 0.1,
        "at": 0.0,
        "bucket": number % 10_000,
    }
    return Observation(**{**given, **changes})


@dataclass
class Replica:
    """One controller on a store, with everything that it put in force, in order."""

    controller: Controller
    applied: list[Mapping[str, Mapping[str, int]]]
    now: list[float]
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    @property
    def weight(self) -> int:
        """The canary's weight that is in force."""
        return self.applied[-1][POLICY]["canary"] if self.applied else 0

    @property
    def weights(self) -> list[int]:
        return [weights[POLICY]["canary"] for weights in self.applied]

    @property
    def state(self) -> RolloutState:
        return self.controller.rollouts[POLICY].state

    async def turns(self, times: int = 1) -> None:
        for _ in range(times):
            self.now[0] += 1
            await self.controller.turn()

    def answers(self, times: int, arm: str = "canary", **changes: Any) -> None:
        for _ in range(times):
            self.controller.observed(an_answer(arm, **changes))

    async def walk(self, weight: int) -> None:
        """Let a healthy canary come as far as this weight."""
        for _ in range(20):
            if self.weight == weight:
                return
            self.answers(4)
            await self.turns()
        raise AssertionError(f"at {self.weight}, never at {weight}")

    async def causes(self) -> list[str]:
        """The history, told by its causes."""
        return [json.loads(line)["cause"] for line in await self.controller.history(POLICY, 1_000)]


def a_replica(
    store: RolloutStore | Path,
    plan: RolloutPlan | None = None,
    *,
    name: str = "a",
    settings: RolloutSettings | None = None,
    lease_s: float = 60.0,
    now: list[float] | None = None,
) -> Replica:
    applied: list[Mapping[str, Mapping[str, int]]] = []
    registry = CollectorRegistry()
    telemetry = RolloutTelemetry(registry)
    clock = now if now is not None else [1_000.0]
    settings = settings or settings_of(PolicyRollout(plan or a_plan()), lease_s=lease_s)
    controller = Controller(
        settings,
        SqliteStore(str(store)) if isinstance(store, Path) else store,
        Outside(telemetry),
        telemetry,
        applied.append,
        name,
        clock=lambda: clock[0],
    )
    return Replica(controller, applied, clock, registry)
