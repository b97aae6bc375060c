"""Rollouts of the file: what every key becomes, every default, and every problem to the letter."""

from __future__ import annotations

import textwrap

import pytest

from ext_proc.config.load import load_text
from ext_proc.core.errors import ConfigError, Problem
from ext_proc.core.rollout_plan import (
    DEFAULT_RULES,
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
)
from ext_proc.core.rollout_settings import (
    Endpoint,
    PolicyRollout,
    PrometheusCheck,
    RolloutSettings,
    WebhookCheck,
)
from ext_proc.core.settings import Configuration
from ext_proc.core.types import Secret

BASE = """\
model_providers:
  - {model: openai/a, default: true}
  - {model: groq/b}
affinity: {salt: 0123456789abcdef}
routing_preferences:
  - name: code
    description: about code
    models: [a]
    rollout:
"""
ENVIRON = {
    "TOKEN": "t0ken-of-sixteen-chars",
    "HOOK": "https://chat.example/T0/key",
    "REDIS": "redis://:pw@r/0",
}


def configured(rollout: str, after: str = "") -> Configuration:
    return load_text(
        BASE + textwrap.indent(rollout, " " * 6) + "\n" + after, "f", ENVIRON, bytes
    ).configuration


def rollout_of(rollout: str) -> PolicyRollout:
    return configured(rollout).rollouts.policies["code"]


def problems_of(text: str) -> list[str]:
    try:
        problems: tuple[Problem, ...] = load_text(text, "f", ENVIRON, bytes).warnings
    except ConfigError as error:
        problems = error.problems
    return [str(problem).removeprefix("f:") for problem in problems]


def test_a_canary_alone_takes_every_default() -> None:
    configuration = configured("canary: b")
    assert configuration.rollouts == RolloutSettings(
        policies={
            "code": PolicyRollout(
                RolloutPlan(
                    policy="code",
                    canary="canary",
                    target="groq/b",
                    steps=(
                        *(SetWeight(500), Analysis(), SetWeight(2_500), Analysis()),
                        *(SetWeight(5_000), Analysis(), SetWeight(10_000)),
                    ),
                    metrics=(DEFAULT_RULES[MetricKind.ERROR_RATE], DEFAULT_RULES[MetricKind.LEFT_SHARE]),
                    hard_limits=(HardLimit(LimitKind.ERROR_RATE, 20, 0.5),),
                ),
                baseline="openai/a",
            )
        }
    )
    assert configuration.rollouts.policies["code"].plan.problems() == ()
    assert configuration.admin_token is None
    route = configuration.snapshot.routes["code"]
    assert [(arm.name, arm.target.name, arm.weight_per_10k) for arm in route.arms] == [
        ("baseline", "openai/a", 10_000),
        ("canary", "groq/b", 0),
    ]
    assert route.observed


def test_every_key_has_its_effect() -> None:
    found = rollout_of(
        """\
canary: groq/b
steps: [2.5, {weight: 10, pause: 1m, analysis: true}, {weight: 20}, pause, analysis, {pause: 2h}]
interval: 200ms
min_requests: 7
metrics:
  - latency_p95
  - {metric: error_rate, tolerance: 0.01, max_degradation: 0.02}
  - {metric: fallback_share, max_degradation: 50%}
  - {metric: cost, tolerance: 5 %, max_degradation: 12.5%}
  - {metric: similarity, tolerance: 0.1, max_degradation: 0.3, noise_floor: true}
checks:
  - {name: users, prometheus: {url: "http://p:9090", query: up, min: 0.5, max: 2, token: $TOKEN, timeout: 1s}}
  - {name: evals, webhook: {url: $HOOK, min_score: 0.7}}
max_failures: 3
hard_limits:
  - {metric: latency_p95, limit: 10s, requests: 50}
  - {metric: consecutive_errors, requests: 5}
  - {metric: cost, limit: 0.25}
on_failure: pause
promotion: manual
start: manual
deadline: 2h
false_rollback_rate: 0.01
hooks:
  confirm_rollout: ["http://h/1", {url: "http://h/2", token: $TOKEN, timeout: 2s}]
  rollback: [$HOOK]
  event: ["http://h/3"]
"""
    )
    hook = Endpoint(Secret(ENVIRON["HOOK"]), None, 5.0)
    token = Secret(ENVIRON["TOKEN"])
    assert found == PolicyRollout(
        plan=RolloutPlan(
            policy="code",
            canary="canary",
            target="groq/b",
            steps=(
                *(SetWeight(250), Analysis(), SetWeight(1_000), Pause(60.0), Analysis(), SetWeight(2_000)),
                *(Pause(None), Analysis(), Pause(7200.0)),
            ),
            interval_s=0.2,
            min_requests=7,
            metrics=(
                DEFAULT_RULES[MetricKind.LATENCY_P95],
                MetricRule(MetricKind.ERROR_RATE, 0.01, 0.02),
                MetricRule(MetricKind.FALLBACK_SHARE, 0.0, 0.5, relative=True),
                MetricRule(MetricKind.COST, 0.05, 0.125, relative=True),
                MetricRule(MetricKind.SIMILARITY, 0.1, 0.3, noise_floor=True),
            ),
            checks=("users", "evals"),
            max_failures=3,
            hard_limits=(
                HardLimit(LimitKind.LATENCY_P95, 50, 10.0),
                HardLimit(LimitKind.CONSECUTIVE_ERRORS, 5),
                HardLimit(LimitKind.COST, 20, 0.25),
            ),
            on_failure=OnFailure.PAUSE,
            promotion=Promotion.MANUAL,
            deadline_s=7200.0,
            hooks=frozenset({Hook.CONFIRM_ROLLOUT, Hook.ROLLBACK}),
            false_rollback_rate=0.01,
            auto_start=False,
        ),
        baseline="openai/a",
        hooks={
            Hook.CONFIRM_ROLLOUT: (
                Endpoint(Secret("http://h/1"), None, 5.0),
                Endpoint(Secret("http://h/2"), token, 2.0),
            ),
            Hook.ROLLBACK: (hook,),
        },
        listeners=(Endpoint(Secret("http://h/3"), None, 5.0),),
        checks=(
            PrometheusCheck("users", Endpoint(Secret("http://p:9090"), token, 1.0), "up", 0.5, 2.0),
            WebhookCheck("evals", hook, 0.7),
        ),
    )
    assert found.plan.problems() == ()


def test_where_rollouts_are_kept_and_who_may_change_them() -> None:
    configuration = configured(
        "canary: b", "rollouts: {store: $REDIS, namespace: eu, lease: 2s}\nadmin: {token: $TOKEN}\n"
    )
    found = configuration.rollouts
    assert (found.store, found.namespace, found.lease_s) == (Secret("redis://:pw@r/0"), "eu", 2.0)
    assert configuration.admin_token == Secret(ENVIRON["TOKEN"])
    assert "pw@" not in repr(configuration)
    assert ENVIRON["TOKEN"] not in repr(configuration)


IN_A_ROLLOUT = [
    ("canary: c", '10:15: there is no provider "c" — known: openai/a, groq/b'),
    (
        "canary: a",
        '10:15: "openai/a" is the model this policy has'
        " — name the one that it moves to, or remove a rollout that is over",
    ),
    ("interval: 1m", '10:7: this rollout has no "canary" — write e.g. "canary: openai/gpt-4o-mini"'),
    ("canary: b\nstps: [5]", '11:7: unknown key "stps" — did you mean "steps"?'),
    ("canary: b\nsteps: []", "11:14: these steps set no weight — write e.g. steps: [5, 25, 50, 100]"),
    (
        "canary: b\nsteps: [5, 5]",
        "11:14: the weights of the steps go up — write e.g. steps: [5, 25, 50, 100]",
    ),
    (
        "canary: b\nsteps: [0, 5]",
        "11:14: a weight is above 0 and at most 100 % — write e.g. steps: [5, 25, 50, 100]",
    ),
    (
        "canary: b\nsteps: [analysis, 5]",
        "11:14: the first step sets a weight — write e.g. steps: [5, 25, 50, 100]",
    ),
    (
        "canary: b\nsteps: [5, {weight: 100, analysis: true}]",
        "11:18: at 100 percent nothing is left to compare the canary with, and there are no checks"
        " — analyse below 100, e.g. steps: [5, 25, 50, 100]",
    ),
    ("canary: b\nsteps: [5, 101]", '11:18: "steps" must be from 0 to 100 — write percent, e.g. 20 or 0.5'),
    (
        "canary: b\nsteps: [5, stop]",
        '11:18: "steps" has an unknown step — write a weight, analysis, pause, or {pause: 10m}',
    ),
    (
        "canary: b\nsteps: [0.1, 5, 100]",
        "11:14: below 0.16 % a canary has too few sessions for an analysis to be decided"
        " — begin with a larger step, or with one without an analysis, e.g. {weight: 0.1, pause: 1h}",
    ),
    (
        "canary: b\nsteps: [5, {}]",
        "11:18: a step that does nothing — write e.g. {weight: 10} or {pause: 10m}",
    ),
    (
        "canary: b\nsteps: [5, {pause: forever}]",
        '11:26: "pause" is not a duration — write a number and its unit (ms, s, m or h), e.g. 1ms',
    ),
    (
        "canary: b\nmetrics: [eror_rate]",
        '11:17: "metrics" has an unknown value — did you mean "error_rate"?',
    ),
    (
        "canary: b\nmetrics: [{metric: latency_p95, max_degradation: 0.5}]",
        '11:17: "latency_p95" has margins relative to the baseline — write e.g. max_degradation: 50%',
    ),
    (
        "canary: b\nmetrics: [{metric: similarity, max_degradation: 50%}]",
        '11:17: "similarity" has margins in points — write e.g. max_degradation: 0.1',
    ),
    (
        "canary: b\nmetrics: [{metric: error_rate, tolerance: 0.1, max_degradation: 50%}]",
        "11:49: one of the margins is a percentage of the baseline's value, the other is not"
        " — write both with a percent sign, or both without",
    ),
    (
        "canary: b\nmetrics: [{metric: error_rate, tolerance: 10%}]",
        "11:49: the tolerance is of another kind than the usual max_degradation"
        " — write max_degradation too, in the same way",
    ),
    (
        "canary: b\nmetrics: [{metric: error_rate, tolerance: 0.3}]",
        "11:17: max_degradation is not above tolerance"
        " — leave room between what is tolerated and what is too bad",
    ),
    (
        "canary: b\nmetrics: [{metric: cost, noise_floor: true}]",
        '11:45: "cost" has no noise floor — only similarity has one',
    ),
    ("canary: b\nmetrics: [cost, cost]", "11:16: a metric is listed twice — write each once"),
    (
        "canary: b\nhard_limits: [{metric: error_rate}]",
        '11:21: "error_rate" needs a limit — write e.g. limit: 0.2',
    ),
    (
        "canary: b\nhard_limits: [{metric: error_rate, limit: 20}]",
        "11:21: an error rate is never above 1 — write a share, e.g. limit: 0.2",
    ),
    (
        "canary: b\nhard_limits: [{metric: consecutive_errors, limit: 3}]",
        '11:21: "consecutive_errors" has no limit — write how many as requests',
    ),
    (
        "canary: b\nchecks: [{name: x}]",
        '11:16: a check is one of prometheus and webhook — write e.g. "webhook: {url: …}"',
    ),
    (
        "canary: b\nchecks: [{name: x, prometheus: {url: 'http://p', query: up}}]",
        "11:38: this query has no bounds — write min, max or both",
    ),
    (
        "canary: b\nchecks: [{name: x, webhook: 'http://a'}, {name: x, webhook: 'http://b'}]",
        '11:55: two checks are called "x" — rename one',
    ),
    (
        "canary: b\nhooks: {event: [ftp://a, 'http://[']}",
        "11:23: this is not an http or https URL — write e.g. https://hooks.example.com/gate",
        "11:32: this is not an http or https URL — write e.g. https://hooks.example.com/gate",
    ),
    (
        "canary: b\nmetrics: [left_share, similarity, judge]",
        '10:7: warning: "judge" has no judge — write comparison: {judge: {model: …}}',
        '10:7: warning: "judge" has nothing to compare: no shadow of this policy copies to the canary'
        " — write shadow: [{model: groq/b, percent: 10}] at the policy",
        '10:7: warning: "similarity" has nothing to compare: no shadow of this policy copies to the canary'
        " — write shadow: [{model: groq/b, percent: 10}] at the policy",
    ),
    (
        "canary: b\nmetrics: [left_share, cost]\nhard_limits: [{metric: cost, limit: 1}]",
        '10:7: warning: "cost" is not known: openai/a, groq/b has no price — give the provider a price',
        "10:7: warning: a hard limit on cost is never crossed: groq/b has no price — give it a price",
    ),
    (
        "canary: b\nmetrics: [error_rate]",
        "10:7: warning: a canary that hangs until its clients leave is not noticed:"
        " the metrics lack left_share — add left_share to the metrics",
    ),
    (
        "canary: b\nhooks: {event: [$UNSET]}",
        "11:23: the environment variable UNSET is not set — set it where the server runs",
    ),
]


@pytest.mark.parametrize("case", IN_A_ROLLOUT, ids=lambda case: case[0])
def test_a_problem_of_a_rollout(case: tuple[str, ...]) -> None:
    text, *problems = case
    assert problems_of(BASE + textwrap.indent(text, " " * 6) + "\n") == problems


SOUND = BASE + "      canary: b\n"
ELSEWHERE = [
    (
        "rollouts: {store: mysql://x}",
        '11:19: "store" is no URL of a store that is known here'
        " — write a file's path, or a URL with one of redis, rediss, unix",
    ),
    (
        "rollouts: {store: ''}",
        '11:19: "store" is empty — write a file\'s path, e.g. arch-rollouts.sqlite, or a Redis URL',
    ),
    ("rollouts: {lease: 1ms}", '11:19: "lease" must be from 100ms to 5m — write e.g. 100ms'),
    (
        "admin: {token: short}",
        '11:16: warning: "token" has fewer than 16 characters: it could be guessed'
        " — write e.g. the output of: openssl rand -hex 32",
    ),
    (
        "admin: {token: 'has a space in it, which no header'}",
        '11:16: "token" is empty or has characters that no header can carry — check the token',
    ),
]


@pytest.mark.parametrize("case", ELSEWHERE, ids=lambda case: case[0])
def test_a_problem_of_what_rollouts_need(case: tuple[str, ...]) -> None:
    text, *problems = case
    assert problems_of(SOUND + text + "\n") == problems


def test_a_noise_floor_is_measured_by_a_shadow() -> None:
    rollout = "      canary: b\n      metrics: [left_share, {metric: similarity, noise_floor: true}]\n"
    text = BASE.replace("    rollout:\n", "    shadow: [{model: b, percent: 10}]\n    rollout:\n") + rollout
    assert problems_of(text) == [
        "11:7: warning: no shadow of the canary measures the noise floor"
        " — write noise_floor: true at the shadow too"
    ]
    assert problems_of(text.replace("percent: 10}", "percent: 10, noise_floor: true}")) == []


def test_weights_and_a_rollout_exclude_each_other() -> None:
    text = SOUND.replace("models: [a]", "targets: [{model: a, weight: 1}]")
    assert problems_of(text) == [
        "8:5: a policy with a rollout has no weights of its own: the rollout sets them"
        ' — write "models: [the present model]" instead of targets'
    ]
