"""The state machine of a rollout: a pure function from where it is and what came in to where it goes.

    waiting ──start──► progressing ◄──resume── paused          promoted, aborted: over
                         │  │  └──────────────►  │               ▲          ▲
                         │  └── end of the steps ┼───────────────┘          │
                         └── worse, limit, abort ┴──────────────────────────┘

At each look `step()` does the following, in this order; the first that ends the rollout ends the look.

1. *The file.* Another target or arm: a new rollout, waiting, weight 0. Other steps, in flight: paused at
   the highest weight of the new steps that is not above the present one (0 if there is none), to be resumed
   by a person. Other metrics: the evidence of the step begins again. In flight means progressing or paused.
2. *The window* of observations is folded into the evidence, if it is of this step.
3. *Hard limit* crossed, in flight: rolled back.
4. *Commands*, in order. One that `refusal()` objects to does nothing.
5. *The rollback hook* approved, in flight: rolled back.
6. *Worse*: a metric shown to be worse, or an external check that failed more than `max_failures` times in
   the step: `on_failure` rolls back, or pauses (a rollout that is paused already stays as it is).
7. *Walking*, if progressing:
   - `SetWeight` asks `confirm-rollout` if that is configured, then sets the weight; evidence and checks
     begin again. At most one weight is set in a look, so that each has been in force.
   - `Pause` with a duration waits for it; without one it pauses until `resume`.
   - `Analysis` passes once it has lasted an `interval`, the canary has had `min_requests`, every metric is
     good and every external check's latest answer is `pass`. At 100 % there is no baseline left: metrics are
     not asked, hard limits and checks remain. Undecided past `deadline_s`: paused, with what is undecided.
   - past the last step, `confirm-promotion` is asked if configured; `promotion: manual` pauses until
     `promote`; then the canary gets everything and the rollout is promoted.
   A hook's `denied` pauses; `resume` asks it again.

`resume` after a failed analysis begins the evidence again: a person has overruled it. `promote` leaves the
step that is waited in (or promotes, past the last one); with `full` it promotes from wherever it is.
`start` begins at the first step; from promoted or aborted it begins another run.

Rolled back is `aborted`: weight 0, and it stays so until `start` or another target. A clock set back
shifts every remembered time with it, so that what has been waited for stays waited for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ext_proc.core import evidence as evidence_of
from ext_proc.core.rollout_plan import (
    Analysis,
    Answer,
    Breach,
    CheckVerdict,
    Hook,
    OnFailure,
    Pause,
    Promotion,
    RolloutPlan,
    SetWeight,
)
from ext_proc.core.rollout_types import (
    Cause,
    Command,
    Event,
    Finding,
    Inputs,
    Outcome,
    Phase,
    RolloutState,
    Verb,
)
from ext_proc.core.rollout_words import breach_text, finding_text, findings, open_questions, refusal
from ext_proc.core.types import WHOLE_PER_10K


def declared(plan: RolloutPlan, now: float) -> RolloutState:
    """The state of a rollout that the file has and the store has not."""
    return RolloutState(
        policy=plan.policy,
        canary=plan.canary,
        target=plan.target,
        fingerprint=plan.fingerprint,
        text=f"declared: {plan.canary} is to become {plan.target}",
        changed_at=now,
        step_at=now,
        analysed_since=now,
        clock=now,
    )


def step(
    state: RolloutState, plan: RolloutPlan, inputs: Inputs, now: float
) -> tuple[RolloutState, tuple[Event, ...]]:
    """One look: the next state, and the transitions that led there, in order.

    Shapes: the plan has no `problems()`. Units: now in seconds since the epoch. Errors: none, whatever
    the state, the inputs and the clock are.
    """
    look = _Look(_shifted(state, now), plan, now)
    look.take_plan()
    if look.in_flight and inputs.window is not None:
        folded = evidence_of.folded(look.state.evidence, plan, inputs.window)
        look.state = replace(look.state, evidence=folded)
    if look.in_flight and inputs.breach is not None:
        look.roll_back(Cause.HARD_LIMIT, breach_text(inputs.breach), breach=inputs.breach)
    for command in inputs.commands:
        look.obey(command)
    look.take_checks(inputs)
    look.take_answers(inputs)
    if look.state.phase is Phase.WAITING and plan.auto_start:
        look.obey(Command(Verb.START))
    look.judge()
    look.walk()
    return look.ended(state), tuple(look.events)


@dataclass(slots=True)
class _Look:
    """One call of `step()`, while it runs."""

    state: RolloutState
    plan: RolloutPlan
    now: float
    events: list[Event] = field(default_factory=list)
    found: tuple[Finding, ...] = ()

    @property
    def in_flight(self) -> bool:
        return self.state.phase in (Phase.PROGRESSING, Phase.PAUSED)

    # ---- what comes in

    def take_plan(self) -> None:
        state, plan = self.state, self.plan
        if (state.target, state.canary) != (plan.target, plan.canary):
            text = f"the file names {plan.target} as {plan.canary} now: a new rollout"
            fresh = replace(
                declared(plan, self.now),
                run=state.run,
                revision=state.revision,
                obeyed=state.obeyed,
                evidence=evidence_of.restarted(replace(state.evidence, cuts={}), plan),
            )
            self._become(fresh, Cause.TARGET_CHANGED, text)
        elif state.fingerprint != plan.fingerprint or not self._fits():
            self._take_steps()
        elif state.evidence.basis != plan.basis:
            self.state = replace(state, evidence=evidence_of.restarted(state.evidence, plan))

    def obey(self, command: Command) -> None:
        if command.id:
            if command.id in self.state.obeyed:
                return
            self.state = self.state.obeying(command.id)
        if refusal(self.state, command) is not None:
            return
        by = command.by
        match command.verb:
            case Verb.START:
                first = replace(
                    self._at(0), phase=Phase.PROGRESSING, weight_per_10k=0, run=self.state.run + 1
                )
                self._become(first, Cause.STARTED, "started", by=by)
            case Verb.PAUSE:
                self._pause(Cause.COMMAND, "paused", by=by)
            case Verb.RESUME:
                self._resume(by)
            case Verb.PROMOTE if command.full or self.state.step >= len(self.plan.steps):
                self._promote(Cause.COMMAND, by)
            case Verb.PROMOTE:
                self._leave_step(by)
            case Verb.ABORT:
                self._abort(Cause.COMMAND, "aborted", by=by)

    def take_checks(self, inputs: Inputs) -> None:
        if not self.in_flight:
            return
        failures, passed = dict(self.state.failures), set(self.state.passed)
        for name, result in inputs.checks.items():
            if name not in self.plan.checks:
                continue
            passed.discard(name)
            if result.verdict is CheckVerdict.PASS:
                passed.add(name)
            elif result.verdict is CheckVerdict.FAIL:
                failures[name] = failures.get(name, 0) + 1
        self.state = replace(self.state, failures=failures, passed=frozenset(passed))

    def take_answers(self, inputs: Inputs) -> None:
        for given in inputs.answers:
            if (given.run, given.step) != (self.state.run, self.state.step) or not self.in_flight:
                continue
            if given.hook is Hook.ROLLBACK:
                if given.answer is Answer.APPROVED:
                    self.roll_back(Cause.ROLLBACK_HOOK, "the rollback hook says so")
            elif given.hook is not self.state.hook:
                continue
            elif given.answer is Answer.APPROVED:
                self.state = replace(self.state, hook=None, approved=True)
            elif given.answer is Answer.DENIED and self.state.phase is Phase.PROGRESSING:
                self._pause(Cause.HOOK_DENIED, f"the hook {given.hook} denied")

    # ---- what follows from it

    def judge(self) -> None:
        """Roll back, or pause, a canary that has been shown to be worse."""
        if not self.in_flight:
            return
        self.found = findings(self.state, self.plan)
        worse = [one for one in self.found if one.outcome is Outcome.WORSE]
        failed = {name: some for name, some in self.state.failures.items() if some > self.plan.max_failures}
        if worse:
            self._fail(Cause.ANALYSIS_FAILED, "; ".join(map(finding_text, worse)))
        elif failed:
            self._fail(
                Cause.CHECK_FAILED, "; ".join(f"{name} failed {some} times" for name, some in failed.items())
            )

    def walk(self) -> None:
        raised = False
        while self.state.phase is Phase.PROGRESSING:
            index = self.state.step
            if index >= len(self.plan.steps):
                if not raised:
                    self._finish()
                return
            match self.plan.steps[index]:
                case SetWeight(weight) if weight == self.state.weight_per_10k:
                    self.state = self._at(index + 1)
                case SetWeight(weight):
                    if raised or not self._may(Hook.CONFIRM_ROLLOUT):
                        return
                    self._set_weight(weight)
                    raised = True
                case Pause(duration) if duration is not None:
                    if self.now - self.state.step_at < duration:
                        return
                    self._become(self._at(index + 1), Cause.STEP, f"waited {duration:g} s")
                case Pause():
                    self._pause(Cause.PAUSE_STEP, "paused by its steps until it is resumed")
                case Analysis():
                    if raised or not self._analyse():
                        return

    def roll_back(self, cause: Cause, why: str, breach: Breach | None = None) -> None:
        self._abort(cause, f"rolled back: {why}", breach=breach)

    def ended(self, before: RolloutState) -> RolloutState:
        """The state to keep: with another revision if it differs by more than the clock."""
        if replace(self.state, clock=before.clock) == before:
            return self.state
        return replace(self.state, revision=before.revision + 1)

    # ---- single moves

    def _analyse(self) -> bool:
        """Whether the analysis is over with; pauses one that takes too long."""
        waits_for = open_questions(self.state, self.plan, self.found)
        if not waits_for and self.now - self.state.step_at >= self.plan.interval_s:
            self._become(self._at(self.state.step + 1), Cause.ANALYSIS_PASSED, "the analysis passed")
            return True
        if waits_for and self.now - self.state.analysed_since >= self.plan.deadline_s:
            text = f"inconclusive after {self.plan.deadline_s:g} s: {'; '.join(waits_for)}"
            self._pause(Cause.INCONCLUSIVE, text)
        return False

    def _may(self, hook: Hook) -> bool:
        """Whether the hook need not be asked or has agreed; otherwise it is to be asked."""
        if hook not in self.plan.hooks or self.state.approved:
            return True
        self.state = replace(self.state, hook=hook)
        return False

    def _set_weight(self, weight: int) -> None:
        after = replace(
            self._at(self.state.step + 1),
            weight_per_10k=weight,
            evidence=evidence_of.restarted(self.state.evidence, self.plan),
            failures={},
            passed=frozenset(),
        )
        self._become(after, Cause.STEP, f"weight {weight / 100:g} %")

    def _finish(self) -> None:
        if not self._may(Hook.CONFIRM_PROMOTION):
            return
        if self.plan.promotion is Promotion.MANUAL:
            self._pause(Cause.AWAITING_PROMOTION, "every step passed; waits to be promoted")
        else:
            self._promote(Cause.COMPLETED, "")

    def _promote(self, cause: Cause, by: str) -> None:
        after = replace(self._at(len(self.plan.steps)), phase=Phase.PROMOTED, weight_per_10k=WHOLE_PER_10K)
        self._become(after, cause, f"promoted: {self.plan.target} has everything", by=by)

    def _abort(self, cause: Cause, text: str, by: str = "", breach: Breach | None = None) -> None:
        after = replace(self.state, phase=Phase.ABORTED, weight_per_10k=0, hook=None, approved=False)
        self._become(after, cause, text, by=by, breach=breach)

    def _fail(self, cause: Cause, why: str) -> None:
        if self.plan.on_failure is OnFailure.ROLLBACK:
            self.roll_back(cause, why)
        elif self.state.phase is Phase.PROGRESSING:
            self._pause(cause, f"paused: {why}")

    def _pause(self, cause: Cause, text: str, by: str = "") -> None:
        self._become(replace(self.state, phase=Phase.PAUSED, hook=None), cause, text, by=by)

    def _resume(self, by: str) -> None:
        state, cause = self.state, self.state.cause
        after = replace(state, phase=Phase.PROGRESSING, analysed_since=self.now)
        if cause is Cause.AWAITING_PROMOTION:
            self._promote(Cause.COMMAND, by)
            return
        if cause in (Cause.ANALYSIS_FAILED, Cause.CHECK_FAILED):
            fresh = evidence_of.restarted(state.evidence, self.plan)
            after = replace(after, evidence=fresh, failures={}, passed=frozenset())
        elif cause is Cause.PAUSE_STEP:
            after = replace(self._at(state.step + 1), phase=Phase.PROGRESSING)
        if state.run == 0:
            after = replace(after, run=1)  # it was paused before it had started
        self._become(after, Cause.COMMAND, "resumed", by=by)

    def _fits(self) -> bool:
        """Whether the state is one that the plan can have led to."""
        state, plan = self.state, self.plan
        if state.phase is Phase.PROMOTED:
            return True
        return state.step <= len(plan.steps) and state.weight_per_10k in plan.weights

    def _leave_step(self, by: str) -> None:
        """Do not wait any longer. What a weight waits for is a hook, and a person has answered for it."""
        at = self.state.step
        if isinstance(self.plan.steps[at], SetWeight):
            after, text = replace(self.state, approved=True, hook=None), "the hook was overruled"
        else:
            after, text = self._at(at + 1), f"step {at + 1} was left"
        self._become(replace(after, phase=Phase.PROGRESSING), Cause.COMMAND, text, by=by)

    def _take_steps(self) -> None:
        """Go on with steps that are not those that the rollout began with."""
        state, plan = self.state, self.plan
        if not self.in_flight:
            at = len(plan.steps) if state.phase is Phase.PROMOTED else 0
            self.state = replace(self._at(at), fingerprint=plan.fingerprint, phase=state.phase)
            return
        index, weight = 0, 0
        for at, one in enumerate(plan.steps):
            if isinstance(one, SetWeight) and one.weight_per_10k <= state.weight_per_10k:
                index, weight = at + 1, one.weight_per_10k
        after = replace(
            self._at(index),
            fingerprint=plan.fingerprint,
            phase=Phase.PAUSED,
            weight_per_10k=weight,
            evidence=evidence_of.restarted(state.evidence, plan),
            failures={},
            passed=frozenset(),
        )
        text = f"its steps were changed in the file: paused at {weight / 100:g} % until it is resumed"
        self._become(after, Cause.PLAN_CHANGED, text)

    def _at(self, index: int) -> RolloutState:
        """The present state at the beginning of another step."""
        return replace(
            self.state, step=index, step_at=self.now, analysed_since=self.now, hook=None, approved=False
        )

    def _become(
        self, after: RolloutState, cause: Cause, text: str, by: str = "", breach: Breach | None = None
    ) -> None:
        """Make the transition and write it down."""
        before = self.state
        self.events.append(
            Event(
                policy=after.policy,
                canary=after.canary,
                target=after.target,
                run=after.run,
                at=self.now,
                cause=cause,
                from_phase=before.phase,
                to_phase=after.phase,
                step=after.step,
                before_per_10k=before.weight_per_10k,
                after_per_10k=after.weight_per_10k,
                text=text,
                by=by,
                findings=findings(before, self.plan) if before.evidence.metrics else (),
                breach=breach,
            )
        )
        self.state = replace(after, cause=cause, text=text, changed_at=self.now)


def _shifted(state: RolloutState, now: float) -> RolloutState:
    """The state on a clock that reads `now`."""
    back = max(0.0, state.clock - now)
    return replace(
        state,
        clock=now,
        step_at=state.step_at - back,
        analysed_since=state.analysed_since - back,
    )
