"""What the file declares of a rollout: steps, metrics, limits, hooks.

The words are those of Argo Rollouts (steps, `setWeight`, `pause`, `analysis`, promote, abort) and of
Flagger (`interval`, `threshold`, confirm hooks). docs/rollouts.md sets ours beside theirs; `core/rollout.py`
has the transitions, `core/evidence.py` how a metric is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from ext_proc.core.types import WHOLE_PER_10K

DEFAULT_FALSE_ROLLBACK_RATE = 0.05
"""How often a canary within every metric's tolerance is rolled back, over all metrics and looks."""

DEFAULT_FALSE_PASS_RATE = 0.05
"""How often a canary beyond a metric's `max_degradation` passes a step, over all looks."""

LEAST_GROUPS = 16
"""Groups of sessions (of `window.GROUPS`) with an answer of the canary before a metric is decided: how
alike the requests of a session are cannot be told from a handful of sessions. About 18 sessions. A group is
made of buckets of 0.01 %, so a canary of fewer buckets never gets there."""


class MetricKind(StrEnum):
    """What the canary is compared with the baseline by. `core/evidence.py` says how each is measured."""

    ERROR_RATE = "error_rate"
    REJECTED_SHARE = "rejected_share"
    FALLBACK_SHARE = "fallback_share"
    LEFT_SHARE = "left_share"
    LATENCY_P50 = "latency_p50"
    LATENCY_P95 = "latency_p95"
    FIRST_BYTE_P50 = "first_byte_p50"
    FIRST_BYTE_P95 = "first_byte_p95"
    TOKENS = "tokens"
    COST = "cost"
    SIMILARITY = "similarity"
    JUDGE = "judge"


QUANTILES = frozenset(
    {
        MetricKind.LATENCY_P50,
        MetricKind.LATENCY_P95,
        MetricKind.FIRST_BYTE_P50,
        MetricKind.FIRST_BYTE_P95,
    }
)
"""A quantile of seconds over the answers that are no errors. Margins relative only."""

MEANS = frozenset({MetricKind.TOKENS, MetricKind.COST})
"""A mean per request over the answers that are no errors. Margins relative only."""

COMPARED = frozenset({MetricKind.SIMILARITY, MetricKind.JUDGE})
"""Means over compared answers of primary and shadow. Margins absolute only."""


@dataclass(frozen=True, slots=True)
class MetricRule:
    """One metric and how much worse the canary may be.

    `tolerance`: a canary worse than the baseline by at most this is not rolled back but for the plan's
    `false_rollback_rate`. 0: a canary as good as the baseline.
    `max_degradation`: a step passes only when the canary has been shown to be worse by less than this.
    It must be above `tolerance`; the further above, the sooner a healthy canary passes. In between lies
    what nobody minds either way (Wald's zone of indifference).

    Units: with `relative`, a share of the baseline's value (0.5: half as much again); otherwise points
    of a share (0.03: three in a hundred requests more). Worse means more of it for every kind; for
    `similarity` it is 1 - similarity, for `judge` the share of comparisons lost (a tie is half a loss)
    above one half. `noise_floor` (`similarity` only): compare with how much the primary's model
    disagrees with itself instead of with 0.
    """

    kind: MetricKind
    tolerance: float
    max_degradation: float
    relative: bool = False
    noise_floor: bool = False


DEFAULT_RULES: Mapping[MetricKind, MetricRule] = {
    rule.kind: rule
    for rule in (
        MetricRule(MetricKind.ERROR_RATE, 0.0, 0.03),
        MetricRule(MetricKind.REJECTED_SHARE, 0.0, 0.03),
        MetricRule(MetricKind.FALLBACK_SHARE, 0.0, 0.05),
        MetricRule(MetricKind.LEFT_SHARE, 0.01, 0.05),
        MetricRule(MetricKind.LATENCY_P50, 0.1, 0.5, relative=True),
        MetricRule(MetricKind.LATENCY_P95, 0.1, 0.75, relative=True),
        MetricRule(MetricKind.FIRST_BYTE_P50, 0.1, 0.5, relative=True),
        MetricRule(MetricKind.FIRST_BYTE_P95, 0.1, 0.75, relative=True),
        MetricRule(MetricKind.TOKENS, 0.2, 0.75, relative=True),
        MetricRule(MetricKind.COST, 0.2, 0.75, relative=True),
        MetricRule(MetricKind.SIMILARITY, 0.2, 0.4),
        MetricRule(MetricKind.JUDGE, 0.0, 0.15),
    )
}
"""What a metric means where the file gives its name only."""


class LimitKind(StrEnum):
    """What a hard limit watches. The share kinds look at the last `requests` of the canary."""

    ERROR_RATE = "error_rate"
    CONSECUTIVE_ERRORS = "consecutive_errors"
    LATENCY_P95 = "latency_p95"
    FIRST_BYTE_P95 = "first_byte_p95"
    COST = "cost"


@dataclass(frozen=True, slots=True)
class HardLimit:
    """What rolls the canary back at once, whatever the analysis says and whatever `on_failure` is.

    `error_rate`: more than `limit` (a share) of the last `requests` failed. `latency_p95`,
    `first_byte_p95`: more than 5 % of the last `requests` took longer than `limit` seconds. `cost`: the
    last `requests` cost more than `limit` each on average. None of these says anything before the canary
    has answered so many. `consecutive_errors`: so many failed one after the other; `limit` is unused.
    """

    kind: LimitKind
    requests: int
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class Breach:
    """A hard limit that was crossed: by what value, over how many requests."""

    limit: HardLimit
    value: float
    requests: int


@dataclass(frozen=True, slots=True)
class SetWeight:
    """Give the canary this weight. Weights of a plan may go up only."""

    weight_per_10k: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Stay for so long; None: until `resume`. The canary is still watched and still rolled back."""

    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Analysis:
    """Stay until every metric has been shown to be good, for one `interval` at least."""


Step = SetWeight | Pause | Analysis


class OnFailure(StrEnum):
    """What a failed analysis does. A hard limit rolls back in any case."""

    ROLLBACK = "rollback"
    PAUSE = "pause"


class Promotion(StrEnum):
    """Whether the last step's end makes the canary the policy's model, or a person does."""

    AUTO = "auto"
    MANUAL = "manual"


class Hook(StrEnum):
    """Flagger's webhooks that this core waits for or listens to.

    `confirm-rollout` is asked before each increase of the weight, `confirm-promotion` before promotion,
    `rollback` at every look while the rollout is progressing or paused: `approved` rolls back.
    """

    CONFIRM_ROLLOUT = "confirm-rollout"
    CONFIRM_PROMOTION = "confirm-promotion"
    ROLLBACK = "rollback"


class Answer(StrEnum):
    """A hook's answer. `pending` is also no answer yet, a time-out, an error: ask again at the next look.

    `denied` pauses the rollout; `resume` asks again.
    """

    APPROVED = "approved"
    DENIED = "denied"
    PENDING = "pending"


class CheckVerdict(StrEnum):
    """What a metric from outside (a Prometheus query, a webhook) said at one look."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One answer of an external check. `detail` is for people: the value and the threshold, say."""

    verdict: CheckVerdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """What the file declares for one policy: how its canary's weight goes from nothing to everything.

    `canary` is the arm's name in the split, `target` the name of its target: another target is another
    rollout. `interval_s`: time between looks, and the least a step with an analysis lasts. `min_requests`:
    the canary's in a step before it can pass. `metrics`: judged from observations, at the two rates of
    error that the plan states (`core/evidence.py`). `checks`: names of external checks; a step passes when
    the latest answer of each is `pass`. `max_failures`: how many `fail`s of one check in a step are put
    up with; one more fails the analysis (Argo's `failureLimit`; Flagger's `threshold` less one).
    `deadline_s`: an analysis that has not decided after so long pauses the rollout. `hooks`: the ones
    that are configured; the others count as approved (`rollback`: as not asked). `auto_start`: start as
    soon as the file declares it, else on `start`.

    Errors: `problems()` lists what is wrong with the plan in itself.
    """

    policy: str
    canary: str
    target: str
    steps: tuple[Step, ...]
    interval_s: float = 60.0
    min_requests: int = 200
    metrics: tuple[MetricRule, ...] = (DEFAULT_RULES[MetricKind.ERROR_RATE],)
    checks: tuple[str, ...] = ()
    max_failures: int = 0
    hard_limits: tuple[HardLimit, ...] = ()
    on_failure: OnFailure = OnFailure.ROLLBACK
    promotion: Promotion = Promotion.AUTO
    deadline_s: float = 86_400.0
    hooks: frozenset[Hook] = frozenset()
    false_rollback_rate: float = DEFAULT_FALSE_ROLLBACK_RATE
    false_pass_rate: float = DEFAULT_FALSE_PASS_RATE
    auto_start: bool = True

    @property
    def weights(self) -> tuple[int, ...]:
        """Every weight that this plan can give its canary, the 0 before and after it included."""
        return (0, *(step.weight_per_10k for step in self.steps if isinstance(step, SetWeight)))

    @property
    def fingerprint(self) -> str:
        """Changes with the steps. A rollout in flight whose steps change is paused (`core/rollout.py`)."""
        return ",".join(map(_short, self.steps))

    @property
    def basis(self) -> str:
        """Changes with what the metrics count: evidence gathered under another one begins again."""
        return ";".join(
            f"{rule.kind},{rule.tolerance!r},{rule.max_degradation!r},{rule.relative:d},{rule.noise_floor:d}"
            for rule in self.metrics
        )

    def problems(self) -> tuple[str, ...]:
        """What makes this plan unusable, in words for an operator; empty when nothing does."""
        found = []
        weights = self.weights[1:]
        if not weights:
            found.append("steps set no weight")
        if any(not 0 < weight <= WHOLE_PER_10K for weight in weights):
            found.append("a weight is above 0 and at most 100 %")
        if any(later <= earlier for earlier, later in pairwise(weights)):
            found.append("the weights of the steps go up")
        if self.steps and not isinstance(self.steps[0], SetWeight):
            found.append("the first step sets a weight")
        if any(0 < weight < LEAST_GROUPS for weight in self._weights_compared()):
            found.append(
                f"below {LEAST_GROUPS / 100:g} % a canary has too few sessions for an analysis to be decided"
            )
        if len({rule.kind for rule in self.metrics}) < len(self.metrics):
            found.append("a metric is listed twice")
        for rule in self.metrics:
            if not 0 <= rule.tolerance < rule.max_degradation:
                found.append(f"{rule.kind}: max_degradation is above tolerance, and that is not negative")
            if rule.relative and rule.kind in COMPARED:
                found.append(f"{rule.kind}: its margins are points, not relative")
            if not rule.relative and rule.kind in QUANTILES | MEANS:
                found.append(f"{rule.kind}: its margins are relative, not absolute")
        if not (0 < self.false_rollback_rate < 1 and 0 < self.false_pass_rate < 1):
            found.append("false_rollback_rate and false_pass_rate lie between 0 and 1")
        return tuple(found)

    def _weights_compared(self) -> Iterator[int]:
        """The weights at which an analysis needs answers that the canary gave to sessions of its own."""
        weight = 0
        for step in self.steps:
            if isinstance(step, SetWeight):
                weight = step.weight_per_10k
            elif isinstance(step, Analysis) and any(rule.kind not in COMPARED for rule in self.metrics):
                yield weight


def _short(step: Step) -> str:
    match step:
        case SetWeight(weight):
            return f"w{weight}"
        case Pause(None):
            return "p"
        case Pause(duration):
            return f"p{duration:g}"
        case Analysis():
            return "a"
