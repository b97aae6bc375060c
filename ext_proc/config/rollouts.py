"""The rollouts of the file: plans, checks and hooks, with what is wrong in them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from ext_proc.config.document import Path, Report, shown
from ext_proc.config.draft import Draft
from ext_proc.config.environment import read_secret
from ext_proc.config.rollout_evidence import never_decided
from ext_proc.config.rollout_schema import (
    UNTIL_RESUMED,
    Rollout,
    RolloutCheck,
    RolloutLimit,
    RolloutMetric,
    RolloutStep,
    RolloutWebhook,
)
from ext_proc.config.routes import CANARY
from ext_proc.config.secret_file import SecretFile
from ext_proc.core.rollout_plan import (
    COMPARED,
    DEFAULT_RULES,
    MEANS,
    QUANTILES,
    Analysis,
    HardLimit,
    Hook,
    LimitKind,
    MetricKind,
    MetricRule,
    OnFailure,
    Pause,
    Promotion,
    RolloutPlan,
    SetWeight,
    Step,
)
from ext_proc.core.rollout_settings import (
    DEFAULT_STORE,
    MEMORY_STORE,
    Check,
    Endpoint,
    PolicyRollout,
    PrometheusCheck,
    RolloutSettings,
    WebhookCheck,
)
from ext_proc.core.types import WHOLE_PER_10K, Route, Secret

REDIS_SCHEMES = ("redis", "rediss", "unix")
MIN_TOKEN_CHARS = 16

_STEPS_HINT = "write e.g. steps: [5, 25, 50, 100]"
_SMALL_STEP_HINT = "begin with a larger step, or with one without an analysis, e.g. {weight: 0.1, pause: 1h}"
_STEP_KEYS = ("weight", "pause", "analysis")

_SECONDS = {LimitKind.LATENCY_P95, LimitKind.FIRST_BYTE_P95}


def build_rollouts(
    draft: Draft, routes: Mapping[str, Route], environ: Mapping[str, str], report: Report
) -> RolloutSettings:
    """Resolve every rollout, reporting what is wrong. Those of policies that did not resolve are left out."""
    policies: dict[str, PolicyRollout] = {}
    for index, preference in enumerate(draft.config.routing_preferences or []):
        if preference is None or preference.rollout is None:
            continue
        path: Path = ("routing_preferences", index, "rollout")
        route = routes.get(preference.name)
        built = _Builder(draft, environ, report, path).build(preference.name, preference.rollout, route)
        if built is not None:
            policies.setdefault(preference.name, built)
    written = draft.config.rollouts
    store = _store(draft, environ, report)
    return RolloutSettings(policies, store, written.namespace, written.lease)


def read_token(
    text: str | SecretFile | None, path: Path, draft: Draft, environ: Mapping[str, str], report: Report
) -> Secret | None:
    """A bearer token of the file. None without one, or when it cannot be used, which is a problem."""
    if text is None:
        return None
    value = read_secret(text, environ, draft.document, path, report)
    if value is None:
        return None
    mark = draft.document.mark(path)
    if not value.text or not (value.text.isascii() and value.text.isprintable()) or " " in value.text:
        report.add(mark, '"token" is empty or has characters that no header can carry', "check the token")
        return None
    if path[0] == "admin" and len(value.text) < MIN_TOKEN_CHARS:
        text = f'"token" has fewer than {MIN_TOKEN_CHARS} characters: it could be guessed'
        report.add(mark, text, "write e.g. the output of: openssl rand -hex 32", is_warning=True)
    return Secret(value.text)


def _store(draft: Draft, environ: Mapping[str, str], report: Report) -> Secret:
    path: Path = ("rollouts", "store")
    value = read_secret(draft.config.rollouts.store, environ, draft.document, path, report)
    if value is None:
        return Secret(DEFAULT_STORE)
    if value.is_absent:
        return Secret(MEMORY_STORE)
    scheme, separator, _ = value.text.partition("://")
    mark = draft.document.mark(path)
    if not value.text:
        report.add(mark, '"store" is empty', f"write a file's path, e.g. {DEFAULT_STORE}, or a Redis URL")
    elif separator and scheme not in REDIS_SCHEMES:
        hint = f"write a file's path, or a URL with one of {', '.join(REDIS_SCHEMES)}"
        report.add(mark, '"store" is no URL of a store that is known here', hint)
    elif separator and importlib.util.find_spec("redis") is None:
        hint = "pip install 'arch-ext-proc[redis]'"
        report.add(mark, '"store" is a Redis URL, and the package redis is not installed', hint)
    return Secret(value.text)


class _Builder:
    """Resolves one policy's rollout."""

    def __init__(self, draft: Draft, environ: Mapping[str, str], report: Report, path: Path) -> None:
        self._draft, self._environ, self._report, self._path = draft, environ, report, path
        self._has_problems = False

    def build(self, policy: str, written: Rollout, route: Route | None) -> PolicyRollout | None:
        """Everything is resolved, so that every problem is found, before anything is given up."""
        steps = self._steps(written)
        metrics = tuple(self._metrics(written))
        limits = tuple(self._limits(written))
        checks = tuple(self._checks(written))
        hooks = {
            Hook.CONFIRM_ROLLOUT: self._endpoints("confirm_rollout", written.hooks.confirm_rollout),
            Hook.CONFIRM_PROMOTION: self._endpoints("confirm_promotion", written.hooks.confirm_promotion),
            Hook.ROLLBACK: self._endpoints("rollback", written.hooks.rollback),
        }
        listeners = self._endpoints("event", written.hooks.event)
        arm = next((arm for arm in route.arms if arm.name == CANARY), None) if route is not None else None
        if route is None or arm is None:
            return None
        plan = RolloutPlan(
            policy=policy,
            canary=arm.name,
            target=arm.target.name,
            steps=steps,
            interval_s=written.interval,
            min_requests=written.min_requests,
            metrics=metrics,
            checks=tuple(check.name for check in checks),
            max_failures=written.max_failures,
            hard_limits=limits,
            on_failure=OnFailure(written.on_failure),
            promotion=Promotion(written.promotion),
            deadline_s=written.deadline,
            hooks=frozenset(hook for hook, endpoints in hooks.items() if endpoints),
            false_rollback_rate=written.false_rollback_rate,
            auto_start=written.start == "auto",
        )
        is_whole = self._is_whole()
        for problem in plan.problems() if is_whole and not self._has_problems else ():
            place, hint = ("metrics", "write each once") if "metric" in problem else ("steps", _STEPS_HINT)
            hint = _SMALL_STEP_HINT if "too few" in problem else hint
            self._problem((place,), problem, hint)
        if is_whole and not self._has_problems:
            mark = self._draft.document.mark(self._path)
            for text, hint in never_decided(
                plan, route, arm, self._draft.config.comparison.judge is not None
            ):
                self._report.add(mark, text, hint, is_warning=True)
        return PolicyRollout(
            plan,
            baseline=route.arms[0].target.name,
            hooks={hook: urls for hook, urls in hooks.items() if urls},
            listeners=listeners,
            checks=checks,
        )

    def _steps(self, written: Rollout) -> tuple[Step, ...]:
        steps: list[Step] = []
        weight = 0
        for index, step in enumerate(written.steps):
            if step is None:
                continue
            path: Path = ("steps", index)
            parts = list(_parts(step))
            weight = weight if step.weight is None else step.weight
            if not parts and not any(self._draft.is_lost((*self._path, *path, key)) for key in _STEP_KEYS):
                self._problem(path, "a step that does nothing", "write e.g. {weight: 10} or {pause: 10m}")
            if weight == WHOLE_PER_10K and step.analysis and not written.checks:
                text = "at 100 percent nothing is left to compare the canary with, and there are no checks"
                self._problem(path, text, "analyse below 100, e.g. steps: [5, 25, 50, 100]")
            steps += parts
        is_whole = self._is_whole()
        if is_whole and not any(isinstance(step, SetWeight) for step in steps):
            self._problem(("steps",), "these steps set no weight", _STEPS_HINT)
        return tuple(steps)

    def _is_whole(self) -> bool:
        return not any(lost[: len(self._path)] == self._path for lost in self._draft.lost)

    def _metrics(self, written: Rollout) -> Iterator[MetricRule]:
        for index, metric in enumerate(written.metrics):
            if metric is not None:
                yield self._rule(metric, ("metrics", index))

    def _rule(self, metric: RolloutMetric, path: Path) -> MetricRule:
        kind = MetricKind(metric.metric)
        usual = DEFAULT_RULES[kind]
        most, relative = metric.max_degradation or (usual.max_degradation, usual.relative)
        if metric.tolerance is not None:
            least, least_relative = metric.tolerance
        elif relative == usual.relative:
            least, least_relative = usual.tolerance, relative
        else:
            least, least_relative = 0.0, relative
        if metric.max_degradation is None and metric.tolerance is not None and least_relative != relative:
            hint = "write max_degradation too, in the same way"
            self._problem(
                (*path, "tolerance"), "the tolerance is of another kind than the usual max_degradation", hint
            )
        elif least_relative != relative:
            text = "one of the margins is a percentage of the baseline's value, the other is not"
            self._problem((*path, "tolerance"), text, "write both with a percent sign, or both without")
        elif relative and kind in COMPARED:
            self._problem(path, f'"{kind}" has margins in points', "write e.g. max_degradation: 0.1")
        elif not relative and kind in QUANTILES | MEANS:
            text = f'"{kind}" has margins relative to the baseline'
            self._problem(path, text, "write e.g. max_degradation: 50%")
        elif least >= most:
            text = "max_degradation is not above tolerance"
            self._problem(path, text, "leave room between what is tolerated and what is too bad")
        if metric.noise_floor and kind is not MetricKind.SIMILARITY:
            self._problem((*path, "noise_floor"), f'"{kind}" has no noise floor', "only similarity has one")
        return MetricRule(kind, least, most, relative, metric.noise_floor)

    def _limits(self, written: Rollout) -> Iterator[HardLimit]:
        for index, limit in enumerate(written.hard_limits):
            if limit is not None and self._is_sound(limit, ("hard_limits", index)):
                yield HardLimit(LimitKind(limit.metric), limit.requests, limit.limit or 0.0)

    def _is_sound(self, limit: RolloutLimit, path: Path) -> bool:
        kind = LimitKind(limit.metric)
        text = hint = ""
        if kind is LimitKind.CONSECUTIVE_ERRORS:
            if limit.limit is not None:
                text, hint = '"consecutive_errors" has no limit', "write how many as requests"
        elif limit.limit is None:
            example = "10s" if kind in _SECONDS else "0.2"
            text, hint = f'"{kind}" needs a limit', f"write e.g. limit: {example}"
        elif kind is LimitKind.ERROR_RATE and not limit.limit < 1:
            text, hint = "an error rate is never above 1", "write a share, e.g. limit: 0.2"
        if text:
            self._problem(path, text, hint)
        return not text

    def _checks(self, written: Rollout) -> Iterator[Check]:
        seen: set[str] = set()
        for index, check in enumerate(written.checks):
            if check is None:
                continue
            path: Path = ("checks", index)
            if check.name in seen:
                self._problem((*path, "name"), f'two checks are called "{shown(check.name)}"', "rename one")
                continue
            seen.add(check.name)
            if (built := self._check(check, path)) is not None:
                yield built

    def _check(self, check: RolloutCheck, path: Path) -> Check | None:
        prometheus, webhook = check.prometheus, check.webhook
        lost = any(self._draft.is_lost((*self._path, *path, key)) for key in ("prometheus", "webhook"))
        if (prometheus is None) == (webhook is None):
            if not lost:
                text = "a check is one of prometheus and webhook"
                self._problem(path, text, 'write e.g. "webhook: {url: …}"')
            return None
        if webhook is not None:
            endpoint = self._endpoint(webhook.url, webhook.token, webhook.timeout, (*path, "webhook"))
            return None if endpoint is None else WebhookCheck(check.name, endpoint, webhook.min_score)
        assert prometheus is not None
        where: Path = (*path, "prometheus")
        if prometheus.min is None and prometheus.max is None:
            self._problem(where, "this query has no bounds", "write min, max or both")
        endpoint = self._endpoint(prometheus.url, prometheus.token, prometheus.timeout, where)
        if endpoint is None:
            return None
        return PrometheusCheck(check.name, endpoint, prometheus.query, prometheus.min, prometheus.max)

    def _endpoints(self, name: str, written: list[RolloutWebhook | None] | None) -> tuple[Endpoint, ...]:
        found = [
            self._endpoint(hook.url, hook.token, hook.timeout, ("hooks", name, index))
            for index, hook in enumerate(written or [])
            if hook is not None
        ]
        return tuple(endpoint for endpoint in found if endpoint is not None)

    def _endpoint(
        self, url: str, token: str | SecretFile | None, timeout_s: float, path: Path
    ) -> Endpoint | None:
        document, whole = self._draft.document, (*self._path, *path)
        # A webhook may be written as its URL alone.
        place = (*whole, "url") if (*whole, "url") in document.values else whole
        value = read_secret(url, self._environ, document, place, self._report)
        secret = read_token(token, (*whole, "token"), self._draft, self._environ, self._report)
        if value is None:
            return None
        if value.is_absent:
            return Endpoint(Secret(value.text), secret, timeout_s)
        try:
            parts = urlsplit(value.text)
            is_http = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_http = False
        if not is_http:
            hint = "write e.g. https://hooks.example.com/gate"
            self._report.add(document.mark(place), "this is not an http or https URL", hint)
            return None
        return Endpoint(Secret(value.text), secret, timeout_s)

    def _problem(self, path: Path, text: str, hint: str) -> None:
        self._has_problems = True
        self._report.add(self._draft.document.mark((*self._path, *path)), text, hint)


def _parts(step: RolloutStep) -> Iterator[Step]:
    if step.weight is not None:
        yield SetWeight(step.weight)
    if step.pause is not None:
        yield Pause(None if step.pause == UNTIL_RESUMED else float(step.pause))
    if step.analysis:
        yield Analysis()
