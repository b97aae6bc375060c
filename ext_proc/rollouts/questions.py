"""What the driving replica asks outside after each look, beside its turns; answers count at a later look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ext_proc.core.rollout_plan import Analysis, Answer, Hook
from ext_proc.core.rollout_settings import Check
from ext_proc.core.rollout_types import HookAnswer, RolloutState
from ext_proc.rollouts.outside import Outside, Payload
from ext_proc.rollouts.tracked import IN_FLIGHT, Tracked
from ext_proc.telemetry.tasks import spawn

_Key = tuple[str, str, int, int]


class Questions:
    """Asks each question of a rollout once at a time. `wake` is called when an answer should be looked at."""

    def __init__(self, outside: Outside, wake: Callable[[], None]) -> None:
        self._outside = outside
        self._wake = wake
        self._open: dict[_Key, asyncio.Task[None]] = {}

    def ask(self, one: Tracked) -> None:
        """Ask what the state after a look wants to know."""
        state, plan = one.state, one.plan
        if state.hook is not None:
            self._once(one, state.hook.value, self._ask_hook(one, state.hook, state))
        if state.phase not in IN_FLIGHT:
            return
        if Hook.ROLLBACK in plan.hooks:
            self._once(one, Hook.ROLLBACK.value, self._ask_hook(one, Hook.ROLLBACK, state))
        if state.step < len(plan.steps) and isinstance(plan.steps[state.step], Analysis):
            for check in one.rollout.checks:
                self._once(one, f"check {check.name}", self._ask_check(one, check, state))

    def close(self) -> None:
        for task in self._open.values():
            task.cancel()

    def _once(self, one: Tracked, name: str, question: Coroutine[Any, Any, None]) -> None:
        key = (one.plan.policy, name, one.state.run, one.state.step)
        if key in self._open:
            question.close()
            return
        task = spawn(question, f"rollout {name}")
        self._open[key] = task
        task.add_done_callback(lambda _: self._open.pop(key, None))

    async def _ask_hook(self, one: Tracked, hook: Hook, state: RolloutState) -> None:
        endpoints = one.rollout.hooks.get(hook, ())
        answer = await self._outside.ask(hook, endpoints, payload_of(one, state, hook.value))
        if answer is Answer.PENDING:
            return
        one.pending.answers.append(HookAnswer(hook, state.run, state.step, answer))
        self._wake()

    async def _ask_check(self, one: Tracked, check: Check, state: RolloutState) -> None:
        result = await self._outside.check(check, payload_of(one, state, check.name))
        if (one.state.run, one.state.step) == (state.run, state.step):
            one.pending.checks[check.name] = result


def payload_of(one: Tracked, state: RolloutState, asked: str) -> Payload:
    """What an endpoint is told about the rollout that it is asked about."""
    return {
        "asked": asked,
        "policy": state.policy,
        "canary": state.canary,
        "target": state.target,
        "run": state.run,
        "phase": state.phase.value,
        "step": state.step,
        "weight": state.weight_per_10k / 100,
        "exposed": one.exposed,
    }
