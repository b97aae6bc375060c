"""One rollout in this process: what the store says of it, and what was seen since.

Answers are counted in constant time as they arrive. What was counted is given to a look, and forgotten
only when what the look led to is stored: a store that fails loses nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from ext_proc.core.hard_limits import Watch
from ext_proc.core.observation import Comparison, Observation, Role
from ext_proc.core.ports import Stored
from ext_proc.core.rollout import declared
from ext_proc.core.rollout_json import StateError, dump_event, dump_state, load_state
from ext_proc.core.rollout_plan import Breach, CheckResult, RolloutPlan
from ext_proc.core.rollout_settings import PolicyRollout
from ext_proc.core.rollout_types import Command, Event, HookAnswer, Inputs, Phase, RolloutState, WindowCounts
from ext_proc.core.window import Window, merged

FORGOTTEN = ""
"""The stored document of a rollout that the file no longer has."""

IN_FLIGHT = (Phase.PROGRESSING, Phase.PAUSED)


@dataclass(frozen=True, slots=True)
class Hold:
    """A weight that this process does not exceed until the store knows why: a stop outruns the store."""

    run: int
    weight_per_10k: int


@dataclass(slots=True)
class Pending:
    """What came in and is not yet part of a stored state."""

    window: WindowCounts | None = None
    exposed: int = 0
    commands: list[Command] = field(default_factory=list)
    answers: list[HookAnswer] = field(default_factory=list)
    checks: dict[str, CheckResult] = field(default_factory=dict)
    breach: Breach | None = None

    @property
    def is_urgent(self) -> bool:
        """Whether a look should not wait for the interval."""
        return bool(self.commands or self.answers or self.breach)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a look was given. `exposed`: the canary's answers since the last one."""

    inputs: Inputs
    exposed: int


class Tracked:
    """Not for several threads. `version` is the store's; 0 means that the store has no state."""

    def __init__(self, rollout: PolicyRollout, now: float) -> None:
        self.rollout = rollout
        self.state = declared(rollout.plan, now)
        self.version = 0
        self.exposed = 0
        self.pending = Pending()
        self.looked_at = float("-inf")
        self.hold: Hold | None = None
        self.unreadable = ""
        self._count_from(self.state)
        self._seen = [0, 0]

    @property
    def plan(self) -> RolloutPlan:
        return self.rollout.plan

    @property
    def weight_per_10k(self) -> int:
        """The canary's weight in this process. A state of another target says nothing of this one."""
        state, plan = self.state, self.rollout.plan
        if self.unreadable or (state.canary, state.target) != (plan.canary, plan.target):
            return 0
        if self.hold is not None:
            return min(state.weight_per_10k, self.hold.weight_per_10k)
        return state.weight_per_10k

    @property
    def share_observed(self) -> float | None:
        """The canary's share of the answers at this weight; None before the first."""
        total = sum(self._seen)
        return self._seen[1] / total if total else None

    def declare(self, rollout: PolicyRollout) -> None:
        """Take another declaration. What was counted by the old one's metrics is dropped."""
        is_other = rollout.plan != self.plan
        self.rollout = rollout
        if is_other:
            self.pending.window = None
            self._count_from(self.state)

    def observed(self, observation: Observation) -> Breach | None:
        """Count one answer. A breach is given once, when it is first seen."""
        if observation.role is not Role.PRIMARY:
            return None
        is_canary = observation.arm == self.plan.canary
        if is_canary and (observation.decided or observation.target) != self.plan.target:
            return None  # decided when the file had another canary: it says nothing of this one
        if not observation.amends:
            self._seen[is_canary] += 1
            self.pending.exposed += is_canary
        if self.state.phase not in IN_FLIGHT:
            return None
        self._window.add(observation)
        breach = self._watch.seen(observation)
        if breach is None or self.pending.breach is not None:
            return None
        self.stop(breach)
        return breach

    def compared(self, comparison: Comparison) -> None:
        if self.state.phase in IN_FLIGHT:
            self._window.compare(comparison)

    def stop(self, breach: Breach) -> None:
        """Take the canary's weight away in this process, and have the next look write it down."""
        self.pending.breach = breach
        self.hold = Hold(self.state.run, 0)

    def gather(self) -> Taken:
        """Everything pending, as a look takes it. It stays pending."""
        self._take_counts()
        pending = self.pending
        inputs = Inputs(
            window=pending.window,
            commands=tuple(pending.commands),
            answers=tuple(pending.answers),
            checks=dict(pending.checks),
            breach=pending.breach,
        )
        return Taken(inputs, pending.exposed)

    def exposed_by(self, after: RolloutState, taken: Taken) -> int:
        """How many answers of the canary the run has had, at what a look led to.

        What came before a run began was the last one's.
        """
        return self.exposed + taken.exposed if after.run == self.state.run else 0

    def take_window(self) -> tuple[WindowCounts | None, int]:
        """What was counted, to be sent to whoever looks; it is forgotten here."""
        self._take_counts()
        window, exposed = self.pending.window, self.pending.exposed
        self.pending.window, self.pending.exposed = None, 0
        return window, exposed

    def give_window(self, window: WindowCounts | None, exposed: int) -> None:
        """Add what another replica counted, or what could not be sent."""
        self.pending.exposed += exposed
        if window is not None and window.epoch == self.state.evidence.epoch:
            self._add_counts(window)

    def became(self, after: RolloutState, version: int, taken: Taken) -> None:
        """A look's outcome is stored: what it took is no longer pending."""
        pending, inputs = self.pending, taken.inputs
        self.exposed = self.exposed_by(after, taken)
        self.pending = Pending(
            exposed=pending.exposed - taken.exposed,
            commands=pending.commands[len(inputs.commands) :],
            answers=pending.answers[len(inputs.answers) :],
            checks={name: got for name, got in pending.checks.items() if inputs.checks.get(name) is not got},
            breach=None if pending.breach is inputs.breach else pending.breach,
        )
        self._adopt(after, version)

    def adopt(self, stored: Stored, now: float) -> None:
        """Take over what the store has, written by another process or before a restart."""
        if stored.document == FORGOTTEN:
            self._adopt(declared(self.plan, now), stored.version)
            return
        try:
            state, exposed = read_document(stored.document)
        except StateError as error:
            self.unreadable, self.version = str(error), stored.version
            return
        self.unreadable = ""
        self.exposed = exposed
        self._adopt(state, stored.version)

    def _adopt(self, after: RolloutState, version: int) -> None:
        before, self.state, self.version = self.state, after, version
        if self.hold is not None and (after.run != self.hold.run or after.phase not in IN_FLIGHT):
            self.pending.breach = None
        if self.pending.breach is None:
            self.hold = None
        is_other = (before.run, before.weight_per_10k, before.evidence.epoch) != (
            after.run,
            after.weight_per_10k,
            after.evidence.epoch,
        )
        if is_other:
            self.pending.window = None
            self._seen = [0, 0]
            self._count_from(after)
        else:
            self._take_counts()

    def _count_from(self, state: RolloutState) -> None:
        self._window = Window(self.rollout.plan, state.evidence)
        self._watch = Watch(self.rollout.plan)

    def _take_counts(self) -> None:
        self._add_counts(self._window.counts())
        self._window = Window(self.rollout.plan, self.state.evidence)

    def _add_counts(self, window: WindowCounts) -> None:
        parts = [window] if self.pending.window is None else [self.pending.window, window]
        self.pending.window = merged(parts, self.state.evidence.epoch)


def write_document(state: RolloutState, exposed: int) -> str:
    """What the store keeps of a rollout: its state, and how many answers of the canary its run has had."""
    return json.dumps({"exposed": exposed, "state": json.loads(dump_state(state))}, separators=(",", ":"))


def read_document(document: str) -> tuple[RolloutState, int]:
    """Errors: StateError."""
    try:
        plain = json.loads(document)
        exposed = plain["exposed"]
        state = plain["state"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise StateError("this is no stored rollout") from None
    if type(exposed) is not int or exposed < 0:
        raise StateError("exposed: expected a count")
    return load_state(json.dumps(state)), exposed


def write_event(event: Event, exposed: int) -> str:
    """A line of the history."""
    return json.dumps({**json.loads(dump_event(event)), "exposed": exposed}, separators=(",", ":"))
