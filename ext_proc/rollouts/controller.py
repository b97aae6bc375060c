"""Drives the rollouts: looks at each in its interval, stores what follows, and puts the weights in force.

One replica, the one that holds the store's lease, looks and writes; the others follow what it wrote and
send it what they counted. Rules that hold for all of them:

- A weight goes down first here and then in the store, and up first in the store and then here. So whatever
  dies in between, no more sessions meet a canary than the store knows of.
- A hard limit is noticed with the answer that crosses it, on any replica, and takes the weight away there at
  once. The store learns of it at the next turn.
- Without the store, weights stay as they are or go down, never up.
- No request waits for any of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ext_proc.core.errors import CommandRefused, StoreError, StoreFailure
from ext_proc.core.observation import Comparison, Observation
from ext_proc.core.ports import CommandResult, RolloutStore, Stored
from ext_proc.core.rollout import step
from ext_proc.core.rollout_json import StateError
from ext_proc.core.rollout_settings import RolloutSettings
from ext_proc.core.rollout_types import Command
from ext_proc.core.rollout_words import refusal
from ext_proc.rollouts import messages
from ext_proc.rollouts.lease import Lease
from ext_proc.rollouts.messages import Message
from ext_proc.rollouts.outside import Outside
from ext_proc.rollouts.questions import Questions
from ext_proc.rollouts.report import report_of
from ext_proc.rollouts.tracked import FORGOTTEN, Hold, Tracked, write_document, write_event
from ext_proc.telemetry.rollouts import RolloutTelemetry
from ext_proc.telemetry.tasks import spawn

POLL_S = 0.25
"""How often the store is asked for news: a follower is at most this and one read behind."""

REPORT_S = 5.0
"""How long a follower keeps what it counted, at most."""

RESEND_S = 1.0
"""When a breach is told again, should whoever was told have died before writing it down."""

COMMAND_S = 3.0
"""How long whoever gave a command waits to hear what became of it."""

MAX_COMMANDS = 20
"""How many commands to one rollout wait while the store is gone."""

_NEVER = float("-inf")

Weights = Mapping[str, Mapping[str, int]]
"""By policy and arm, in hundredths of a percent."""


class Controller:
    """One per process; implements `core.ports.RolloutControl`.

    `apply` puts weights in force; `holder` is this process's name; `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        store: RolloutStore,
        outside: Outside,
        telemetry: RolloutTelemetry,
        apply: Callable[[Weights], None],
        holder: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._outside = outside
        self._questions = Questions(outside, self._wake_up)
        self._telemetry = telemetry
        self._apply = apply
        self._holder = holder
        self._clock = clock
        self._lease = Lease(store, holder, settings.lease_s, telemetry)
        self.rollouts: dict[str, Tracked] = {}
        self._revision: int | None = None
        self._applied: Weights | None = None
        self._told_at: dict[str, float] = {}
        self.failure: StoreFailure | None = None
        self._wake = asyncio.Event()
        self._turned = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._declare(settings)

    # ---- life

    async def start(self) -> None:
        """Take over what the store has, so that the first request meets the weights of the last; then run."""
        await self.turn()
        self._task = spawn(self._run(), "rollouts")

    async def stop(self) -> None:
        """End, and let another replica take over at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._questions.close()
        await self._outside.close()
        await self._lease.end()
        await self._store.close()

    def configure(self, settings: RolloutSettings) -> None:
        """Take the rollouts of another configuration. What is known of one that stays is kept.

        Call it before the configuration comes into force, and put `weights()` in force with that: a
        canary's weight is not that of another one.
        """
        self._declare(settings)
        self._put_in_force()
        self._wake.set()

    def _declare(self, settings: RolloutSettings) -> None:
        now = self._clock()
        for policy in self.rollouts.keys() - settings.policies.keys():
            del self.rollouts[policy]
            self._telemetry.gone(policy)
        for policy, rollout in settings.policies.items():
            if (one := self.rollouts.get(policy)) is not None:
                if rollout.plan != one.plan:
                    # Other steps may mean a lower weight: whoever leads looks at once.
                    one.looked_at = _NEVER
                one.declare(rollout)
            else:
                self.rollouts[policy] = Tracked(rollout, now)
        # Read everything again: the store may know of a rollout that is new here.
        self._revision = None

    def weights(self) -> Weights:
        """What is to be in force in this process."""
        return {policy: {one.plan.canary: one.weight_per_10k} for policy, one in self.rollouts.items()}

    # ---- what is seen

    def observed(self, observation: Observation) -> None:
        """Count an answer, in constant time. A canary that crosses a hard limit with it is stopped now."""
        one = self.rollouts.get(observation.policy)
        if one is not None and (breach := one.observed(observation)) is not None:
            self._put_in_force()
            self._telemetry.breached(observation.policy, breach.limit.kind.value, breach.value)
            self._wake.set()

    def compared(self, comparison: Comparison) -> None:
        """Count two compared answers."""
        one = self.rollouts.get(comparison.policy)
        if one is not None:
            one.compared(comparison)

    # ---- what people want to know, and want

    def policies(self) -> tuple[str, ...]:
        return tuple(self.rollouts)

    def replica(self) -> Mapping[str, Any]:
        store = "ok" if self.failure is None else self.failure.value
        return {"name": self._holder, "leads": self.leads, "store": store}

    def report(self, policy: str) -> Mapping[str, Any]:
        return report_of(self.rollouts[policy])

    @property
    def leads(self) -> bool:
        """Whether this replica looks and writes."""
        return self._lease.token is not None

    async def command(self, policy: str, command: Command) -> CommandResult:
        """Do what a person says, here or on the replica that leads. Errors: CommandRefused."""
        one = self.rollouts.get(policy)
        if one is None:
            raise CommandRefused(f'no rollout of a policy "{policy}" is declared')
        if one.unreadable:
            raise CommandRefused(f"its stored state cannot be read: {one.unreadable}")
        if (why := refusal(one.state, command)) is not None:
            raise CommandRefused(why)
        if len(one.pending.commands) >= MAX_COMMANDS:
            raise CommandRefused("too many commands wait for the store")
        # Sent to whoever leads it may arrive twice: a store that answers too late has taken it all the same.
        command = replace(command, id=secrets.token_hex(8))
        before = one.state.changed_at, one.state.text
        one.pending.commands.append(command)
        self._wake.set()
        try:
            async with asyncio.timeout(COMMAND_S):
                while _waits(one, command) or (
                    self._lease.token is None and (one.state.changed_at, one.state.text) == before
                ):
                    await self._turned.wait()
        except TimeoutError:
            return CommandResult.WAITING if _waits(one, command) else CommandResult.SENT
        return CommandResult.DONE

    async def history(self, policy: str, limit: int) -> tuple[str, ...]:
        """The last events, the oldest first. Errors: StoreError."""
        return await self._store.history(policy, limit)

    # ---- turns

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            self._wake.clear()
            await self.turn()
            turned, self._turned = self._turned, asyncio.Event()
            turned.set()

    async def turn(self) -> None:
        """One round. Whatever happens in it, the next one comes."""
        try:
            if await self._lease.renew():
                self._revision = None
            await self._follow()
            if self._lease.token is not None:
                await self._lead(self._lease.token)
            else:
                await self._report()
        except StoreError as error:
            self.failure = error.failure
            self._telemetry.store_failed(error.failure, str(error))
            if error.failure in (StoreFailure.CONFLICT, StoreFailure.FENCED):
                self._revision = None
                self._lease.doubt()
            self._do_without()
        except Exception as error:  # noqa: BLE001 - a bug must not leave the rollouts without a driver
            self._telemetry.bug(error, "turn")
        else:
            if self.failure is not None:
                self._recovered()
            self.failure = None
            self._telemetry.store_works()
        self._put_in_force()
        self._show()

    async def _follow(self) -> None:
        revision = await self._store.revision()
        if revision == self._revision:
            return
        stored = await self._store.load()
        now = self._clock()
        for policy, one in self.rollouts.items():
            there = stored.get(policy)
            if there is None:
                # Never stored, or the store was lost: whoever leads writes what it knows.
                one.version = 0
            elif there.version != one.version:
                one.adopt(there, now)
                if one.unreadable:
                    self._telemetry.unreadable(policy, one.unreadable)
        if self._lease.token is not None:
            await self._forget(stored, self._lease.token)
        self._revision = revision

    async def _forget(self, stored: Mapping[str, Stored], token: int) -> None:
        """Leave nothing of a rollout that the file no longer has: declared again, it is a new one."""
        for policy, there in stored.items():
            if policy not in self.rollouts and there.document != FORGOTTEN:
                await self._store.save(policy, FORGOTTEN, (), expected=there.version, token=token)

    async def _lead(self, token: int) -> None:
        for text in await self._store.receive():
            try:
                self._take(messages.read(text))
            except StateError as error:
                self._telemetry.unreadable("", str(error))
        now = time.monotonic()
        for one in list(self.rollouts.values()):
            is_due = one.pending.is_urgent or now - one.looked_at >= one.plan.interval_s
            if not one.unreadable and (is_due or one.version == 0):
                one.looked_at = now
                await self._look_safely(one, token)

    def _take(self, message: Message) -> None:
        one = self.rollouts.get(message.policy)
        if one is None:
            return
        one.give_window(message.window, message.exposed)
        if message.command is not None:
            one.pending.commands.append(message.command)
        if message.breach is not None and message.run == one.state.run and one.pending.breach is None:
            one.stop(message.breach)
            self._put_in_force()

    async def _look_safely(self, one: Tracked, token: int) -> None:
        """A bug in one rollout's look must not hold up the others. Errors: StoreError."""
        try:
            await self._look(one, token)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            self._telemetry.bug(error, one.plan.policy)

    async def _look(self, one: Tracked, token: int) -> None:
        taken, before = one.gather(), one.state
        after, events = step(before, one.plan, taken.inputs, self._clock())
        self._lower(one, after.weight_per_10k)
        exposed = one.exposed_by(after, taken)
        version = one.version
        lines = tuple(write_event(event, exposed) for event in events)
        if after.revision != before.revision or taken.exposed or not version:
            document = write_document(after, exposed)
            version = await self._store.save(one.plan.policy, document, lines, expected=version, token=token)
        one.became(after, version, taken)
        self._put_in_force()
        for event, line in zip(events, lines, strict=True):
            self._telemetry.transition(event, exposed)
            self._outside.tell(one.rollout.listeners, line)
        self._questions.ask(one)

    def _lower(self, one: Tracked, weight_per_10k: int) -> None:
        """Put a lower weight in force before the store knows of it."""
        if weight_per_10k < one.weight_per_10k:
            one.hold = Hold(one.state.run, weight_per_10k)
            self._put_in_force()

    async def _report(self) -> None:
        """Tell whoever leads what came in here."""
        now = time.monotonic()
        for policy, one in self.rollouts.items():
            run = one.state.run
            while one.pending.commands:
                await self._store.send(messages.write(Message(policy, run, command=one.pending.commands[0])))
                del one.pending.commands[0]
            breach = one.pending.breach
            if breach is not None and now - self._told_at.get(policy, _NEVER) >= RESEND_S:
                await self._store.send(messages.write(Message(policy, run, breach=breach)))
                self._told_at[policy] = now
            if now - one.looked_at >= min(one.plan.interval_s / 2, REPORT_S):
                await self._send_counts(policy, one)
                one.looked_at = now

    async def _send_counts(self, policy: str, one: Tracked) -> None:
        window, exposed = one.take_window()
        if window is None and not exposed:
            return
        try:
            await self._store.send(messages.write(Message(policy, one.state.run, exposed, window)))
        except StoreError:
            one.give_window(window, exposed)
            raise

    def _do_without(self) -> None:
        """What can be decided without the store: to expose fewer sessions."""
        for one in self.rollouts.values():
            if one.unreadable:
                continue
            after, _ = step(one.state, one.plan, one.gather().inputs, self._clock())
            self._lower(one, after.weight_per_10k)

    def _recovered(self) -> None:
        """What was held back while the store was gone is for whoever leads to decide, and soon."""
        for one in self.rollouts.values():
            one.looked_at = _NEVER
            if self._lease.token is None and one.pending.breach is None:
                one.hold = None

    # ---- what follows

    def _put_in_force(self) -> None:
        weights = self.weights()
        if weights != self._applied:
            self._applied = weights
            self._apply(weights)

    def _show(self) -> None:
        for policy, one in self.rollouts.items():
            state = one.state
            exposed = one.exposed + one.pending.exposed
            self._telemetry.at(policy, state.phase, state.step, one.weight_per_10k, exposed)
            self._telemetry.share_observed(policy, one.share_observed)

    def _wake_up(self) -> None:
        self._wake.set()


def _waits(one: Tracked, command: Command) -> bool:
    return any(waiting is command for waiting in one.pending.commands)
