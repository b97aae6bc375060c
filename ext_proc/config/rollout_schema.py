"""The shape of a policy's `rollout` and of `rollouts`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ext_proc.config.secret_file import SecretText
from ext_proc.config.section import Section
from ext_proc.config.values import Name, Number, Percent, Share, Text, duration, kind_of, whole, wrong
from ext_proc.core.rollout_plan import DEFAULT_FALSE_ROLLBACK_RATE
from ext_proc.core.rollout_settings import DEFAULT_STORE

MAX_STEPS = 64
MAX_METRICS = 16
MAX_URLS = 8

UNTIL_RESUMED = "until resumed"

_PERCENT = re.compile(r"(\d{1,6}(?:\.\d{1,4})?) ?%")
_DURATION = duration("1ms", "1000h")
_Timeout = Annotated[float, BeforeValidator(duration("10ms", "1m"))]


def _pause(value: object) -> float | str:
    return UNTIL_RESUMED if value == UNTIL_RESUMED else _DURATION(value)


class RolloutStep(Section):
    """One step, or several of Argo's in one: the weight first, then the pause, then the analysis."""

    weight: Percent | None = None
    pause: Annotated[float | str, BeforeValidator(_pause)] | None = None
    analysis: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        match value:
            case bool():
                return value
            case int() | float():
                # At 100 the baseline gets nothing that the canary could be compared with.
                return {"weight": value, "analysis": value != 100}
            case "analysis":
                return {"analysis": True}
            case "pause":
                return {"pause": UNTIL_RESUMED}
            case str():
                raise wrong("has an unknown step", "write a weight, analysis, pause, or {pause: 10m}")
            case _:
                return value


def _margin(value: object) -> tuple[float, bool]:
    """A number of points, or a share of the baseline's value written with a percent sign."""
    if isinstance(value, str):
        match = _PERCENT.fullmatch(value)
        if match is None:
            raise wrong("is not a margin", "write 50% of the baseline's value, or 0.03 for three points")
        return round(float(match[1]) / 100, 8), True
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1_000_000:
        raise wrong("is not a margin", "write 50% of the baseline's value, or 0.03 for three points")
    return float(value), False


Margin = Annotated[tuple[float, bool], BeforeValidator(_margin)]
"""The margin, and whether it is relative to the baseline's value."""


class RolloutMetric(Section):
    metric: Literal[
        "error_rate",
        "rejected_share",
        "fallback_share",
        "left_share",
        "latency_p50",
        "latency_p95",
        "first_byte_p50",
        "first_byte_p95",
        "tokens",
        "cost",
        "similarity",
        "judge",
    ]
    tolerance: Margin | None = None
    max_degradation: Margin | None = None
    noise_floor: bool = False

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"metric": value} if isinstance(value, str) else value


def _limit(value: object) -> float:
    """A duration for the kinds that are seconds, a number for the others; which one is checked later."""
    if isinstance(value, str):
        return _DURATION(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1_000_000:
        raise wrong(f"must be a number or a duration, not {kind_of(value)}", "write e.g. 0.2 or 10s")
    return float(value)


class RolloutLimit(Section):
    metric: Literal["error_rate", "consecutive_errors", "latency_p95", "first_byte_p95", "cost"]
    limit: Annotated[float, BeforeValidator(_limit)] | None = None
    requests: Annotated[int, BeforeValidator(whole(1, 10_000))] = 20


class RolloutWebhook(Section):
    """Whom to call. The URL may be a secret, so it may be a variable."""

    url: Text = Field(repr=False)
    token: SecretText | None = Field(default=None, repr=False)
    timeout: _Timeout = 5.0

    @model_validator(mode="before")
    @classmethod
    def _bare_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


Webhooks = Annotated[list[RolloutWebhook | None], Field(max_length=MAX_URLS)]


class RolloutHooks(Section):
    """Flagger's webhooks, by the words of its `type`."""

    confirm_rollout: Webhooks | None = None
    confirm_promotion: Webhooks | None = None
    rollback: Webhooks | None = None
    event: Webhooks | None = None


class PrometheusQuery(Section):
    url: Text = Field(repr=False)
    query: Text
    min: Number | None = None
    max: Number | None = None
    token: SecretText | None = Field(default=None, repr=False)
    timeout: _Timeout = 5.0


class EvaluationWebhook(RolloutWebhook):
    min_score: Number | None = None


class RolloutCheck(Section):
    """A metric from outside: one of the two."""

    name: Name
    prometheus: PrometheusQuery | None = None
    webhook: EvaluationWebhook | None = None


class Rollout(Section):
    """How a policy moves to another model."""

    canary: Name
    steps: list[RolloutStep | None] = Field(
        default=[5, 25, 50, 100], max_length=MAX_STEPS, validate_default=True
    )
    interval: Annotated[float, BeforeValidator(duration("50ms", "24h"))] = 60.0
    min_requests: Annotated[int, BeforeValidator(whole(1, 1_000_000))] = 200
    metrics: list[RolloutMetric | None] = Field(
        default=["error_rate", "left_share"], max_length=MAX_METRICS, validate_default=True
    )
    checks: list[RolloutCheck | None] = Field(default=[], max_length=MAX_METRICS)
    max_failures: Annotated[int, BeforeValidator(whole(0, 1_000))] = 0
    hard_limits: list[RolloutLimit | None] = Field(
        default=[{"metric": "error_rate", "limit": 0.5}], max_length=MAX_METRICS, validate_default=True
    )
    on_failure: Literal["rollback", "pause"] = "rollback"
    promotion: Literal["auto", "manual"] = "auto"
    start: Literal["auto", "manual"] = "auto"
    deadline: Annotated[float, BeforeValidator(duration("1s", "1000h"))] = 86_400.0
    false_rollback_rate: Share = DEFAULT_FALSE_ROLLBACK_RATE
    hooks: RolloutHooks = RolloutHooks()


class Rollouts(Section):
    store: Text = Field(default=DEFAULT_STORE, repr=False)
    namespace: Name = "default"
    lease: Annotated[float, BeforeValidator(duration("100ms", "5m"))] = 5.0
