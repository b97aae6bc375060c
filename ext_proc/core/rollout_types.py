"""Where a rollout is, what it has seen, what it was told and what it did: the values of `core/rollout.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ext_proc.core.rollout_plan import Answer, Breach, CheckResult, Hook, MetricKind


class Phase(StrEnum):
    """Where a rollout is.

    `waiting`: declared, not started, weight 0. `progressing`: walking the steps, timed pauses and hooks
    included. `paused`: waits for a person; the weight stays, the canary is still watched. `promoted`: the
    canary has everything. `aborted`: rolled back, the canary has nothing. The last two end only by
    `start` or by another target in the file.
    """

    WAITING = "waiting"
    PROGRESSING = "progressing"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ABORTED = "aborted"

    @property
    def is_over(self) -> bool:
        return self in (Phase.PROMOTED, Phase.ABORTED)


class Cause(StrEnum):
    """Why the last transition happened: low-cardinality, so that it may label a metric."""

    DECLARED = "declared"
    STARTED = "started"
    STEP = "step"
    ANALYSIS_PASSED = "analysis_passed"
    ANALYSIS_FAILED = "analysis_failed"
    CHECK_FAILED = "check_failed"
    HARD_LIMIT = "hard_limit"
    INCONCLUSIVE = "inconclusive"
    PAUSE_STEP = "pause_step"
    HOOK_DENIED = "hook_denied"
    ROLLBACK_HOOK = "rollback_hook"
    AWAITING_PROMOTION = "awaiting_promotion"
    PLAN_CHANGED = "plan_changed"
    TARGET_CHANGED = "target_changed"
    COMMAND = "command"
    COMPLETED = "completed"


class Verb(StrEnum):
    """What a person may tell a rollout."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"


REMEMBERED = 64
"""Commands whose ids a rollout keeps."""


@dataclass(frozen=True, slots=True)
class Command:
    """`promote` skips the step that is waited in, or promotes at the end; with `full` it promotes now.

    `id` tells one that arrives twice from a second one like it; empty: it cannot arrive twice.
    """

    verb: Verb
    by: str = ""
    full: bool = False
    id: str = ""


class Outcome(StrEnum):
    """What the evidence says of one metric."""

    WORSE = "worse"
    GOOD = "good"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Finding:
    """One metric at one look: what both arms measured and what the test says.

    `baseline` and `canary` are values in the metric's unit (share, seconds, tokens, cost); None without
    data. Shapes: the counts are requests (compared answers for `similarity` and `judge`). Units: the
    evidence is in nats: natural logarithm of the e-value, `log_worse` against "no worse than the
    tolerance", `log_good` against "worse than max_degradation"; each decides at its `needed`.
    `dispersion`: by how much the requests of a session hang together; 1: not at all.
    """

    metric: MetricKind
    outcome: Outcome
    baseline: float | None
    canary: float | None
    n_baseline: int
    n_canary: int
    log_worse: float
    needed_worse: float
    log_good: float
    needed_good: float
    dispersion: float


@dataclass(frozen=True, slots=True)
class Event:
    """One transition, with its evidence: a line of the rollout's history.

    `run` counts the starts. `before` and `after` are the weights. `text` is a sentence for people; `by`
    names who commanded it, empty when nobody did. `findings` is the analysis that was in force.
    """

    policy: str
    canary: str
    target: str
    run: int
    at: float
    cause: Cause
    from_phase: Phase
    to_phase: Phase
    step: int
    before_per_10k: int
    after_per_10k: int
    text: str
    by: str = ""
    findings: tuple[Finding, ...] = ()
    breach: Breach | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """What one metric counted of both arms, per group of sessions (`evidence.group_of`).

    `n_*`: answers (for `similarity` and `judge` comparisons). `bad_*`: how many of them are bad, each by
    a number in [0, 1], against the metric's tolerance; `harm_canary` the canary's against its
    `max_degradation` (they differ for quantiles, whose tolerance moves the threshold). Shapes: all of the
    same length, or all empty.
    """

    n_baseline: tuple[float, ...] = ()
    n_canary: tuple[float, ...] = ()
    bad_baseline: tuple[float, ...] = ()
    bad_canary: tuple[float, ...] = ()
    harm_canary: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """What was seen between two looks. Sums: the windows of several replicas add up (`evidence.merged`).

    `epoch` is that of the evidence it was opened from. `requests` is the canary's. `histograms` counts
    values per logarithmic bin (`evidence.bin_of`) by `"quantity/arm"`.
    """

    epoch: int
    requests: int = 0
    counts: Mapping[MetricKind, Counts] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetricEvidence:
    """One metric's counts in one step, and a log e-value per alternative of both its tests."""

    counts: Counts = field(default_factory=Counts)
    worse: tuple[float, ...] = ()
    good: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything gathered in one step of a rollout, in bounded memory.

    `epoch` counts the restarts of the evidence: a window opened under another one is not folded in.
    `basis` is the plan's metrics as they were when it began; with others it begins again. `cuts` holds the
    baseline's value that answers are counted against, per metric that needs one (absent: not known yet,
    the metric waits); it is carried from step to step. `requests` is the canary's.
    """

    epoch: int = 0
    basis: str = ""
    requests: int = 0
    cuts: Mapping[MetricKind, float] = field(default_factory=dict)
    metrics: Mapping[MetricKind, MetricEvidence] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RolloutState:
    """Where one rollout is: everything that must survive a restart.

    `step` indexes the plan's steps; past the last one only promotion is left. `hook`: whose answer is
    waited for; the controller asks it at each look. `approved`: the hook of this step has said yes.
    `step_at`: when the step began; `analysed_since`: when its analysis began to count against the
    deadline; `clock`: the time of the last `step()`, so that a clock set back is noticed. `run` counts the
    starts. `revision` grows with every change other than the clock's, for a compare-and-swap in the store.
    `failures` and `passed` (latest answer) are of the external checks, in this step. `obeyed`: ids of the
    last commands, which may arrive again.

    Units: times in seconds since the epoch.
    """

    policy: str
    canary: str
    target: str
    fingerprint: str
    phase: Phase = Phase.WAITING
    step: int = 0
    weight_per_10k: int = 0
    run: int = 0
    cause: Cause = Cause.DECLARED
    text: str = ""
    changed_at: float = 0.0
    step_at: float = 0.0
    analysed_since: float = 0.0
    clock: float = 0.0
    revision: int = 0
    hook: Hook | None = None
    approved: bool = False
    failures: Mapping[str, int] = field(default_factory=dict)
    passed: frozenset[str] = frozenset()
    evidence: Evidence = field(default_factory=Evidence)
    obeyed: tuple[str, ...] = ()

    def obeying(self, command_id: str) -> RolloutState:
        """The same, which knows that command should it arrive again: within seconds, if at all."""
        return replace(self, obeyed=(*self.obeyed, command_id)[-REMEMBERED:])


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """What a hook said when asked in this run and step; in another one it no longer counts."""

    hook: Hook
    run: int
    step: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Inputs:
    """What has come in since the last look. `checks` holds the answers that came in, by check."""

    window: WindowCounts | None = None
    commands: tuple[Command, ...] = ()
    answers: tuple[HookAnswer, ...] = ()
    checks: Mapping[str, CheckResult] = field(default_factory=dict)
    breach: Breach | None = None
