"""Where a rollout is, what it has seen, what it was told and what it did: the values of `core/rollout.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ext_proc.core.rollout_plan import Breach, Hook, MetricKind


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


@dataclass(frozen=True, slots=True)
class Command:
    """`promote` skips the step that is waited in, or promotes at the end; with `full` it promotes now."""

    verb: Verb
    by: str = ""
    full: bool = False


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
class MetricEvidence:
    """What one metric has gathered in one step, in bounded memory. `core/evidence.py` folds and reads it.

    Shapes: the group tuples have `evidence.GROUPS` entries or none, `worse` and `good` one log e-value per
    alternative or none. Per arm: `n_*` requests per group of sessions, sums of what counts as bad per
    group, once against the tolerance (`bad_canary`) and once against max_degradation (`harm_canary`).
    `values_*` sums the metric in its own unit, for people.
    """

    n_baseline: tuple[float, ...] = ()
    n_canary: tuple[float, ...] = ()
    bad_baseline: tuple[float, ...] = ()
    bad_canary: tuple[float, ...] = ()
    harm_canary: tuple[float, ...] = ()
    worse: tuple[float, ...] = ()
    good: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything gathered in one step of a rollout.

    `epoch` counts the steps' weights: a window opened under another one is not folded in. `cuts` holds
    per metric the baseline's value that answers are counted against (None: not known yet, the metric
    waits); it is carried from step to step. `histograms` counts values per logarithmic bin by
    `"quantity/arm"`. `requests` is the canary's.
    """

    epoch: int = 0
    requests: int = 0
    cuts: Mapping[MetricKind, float] = field(default_factory=dict)
    metrics: Mapping[MetricKind, MetricEvidence] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RolloutState:
    """Where one rollout is: everything that must survive a restart.

    `step` indexes the plan's steps; past the last one means only promotion is left. `approved`: the hook
    of this step has said yes. `hook`: the hook whose answer is waited for, to be asked by the controller.
    `analysed_since`: when the current analysis began to count against its deadline. `clock`: the latest
    time seen; time never runs backwards from it. `revision` grows with every change, for a
    compare-and-swap in the store. `failures` and `passed` are of the external checks, in this step.

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
