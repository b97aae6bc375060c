"""Prices, bounds of shadows, what is observed, and the section `comparison`."""

from __future__ import annotations

import pytest

from ext_proc.config.load import load_text
from ext_proc.core.errors import ConfigError
from ext_proc.core.settings import ComparisonSettings, Configuration, SamplesSettings
from ext_proc.core.types import Price, Shadow

PROVIDERS = """
model_providers:
  - {model: openai/a, default: true, access_key: k}
  - {model: vllm/b, base_url: "http://b:8000/v2", price: {input_per_million: 1, output_per_million: 2.5}}
  - {model: mesh/c, cluster: somewhere}
affinity: {salt: 0123456789abcdef}
"""


def loaded(rest: str) -> Configuration:
    return load_text(PROVIDERS + rest, "f", {}, lambda: b"").configuration


def policies(more: str) -> str:
    return f"routing_preferences: [{{name: p, description: d, models: [a]{more}}}]\n"


def test_a_provider_has_a_price() -> None:
    targets = loaded("").snapshot.targets
    assert targets["vllm/b"].price == Price(1.0, 2.5)
    assert targets["openai/a"].price is None


def test_a_shadow_has_bounds() -> None:
    rest = policies(
        ", shadow: [{model: b, percent: 2, max_concurrent: 3, max_per_minute: 4,"
        " max_body: 5KiB, noise_floor: true}]"
    )
    snapshot = loaded(rest).snapshot
    route = snapshot.routes["p"]
    assert route.shadows == (Shadow(snapshot.targets["vllm/b"], 200, 3, 4, 5 << 10, noise_floor=True),)
    assert route.observed


@pytest.mark.parametrize(("more", "observed"), [("", False), (", observe: true", True)])
def test_a_policy_without_a_shadow_is_observed_when_it_says_so(more: str, observed: bool) -> None:
    assert loaded(policies(more)).snapshot.routes["p"].observed is observed


def test_comparison_has_defaults() -> None:
    assert loaded("").comparison == ComparisonSettings()


def test_a_judge_is_a_provider_and_samples_are_redacted_unless_told_otherwise() -> None:
    comparison = loaded(
        "comparison: {pair_timeout: 5s, max_pairs: 7, max_text: 2KiB, judge: {model: b, percent: 50},"
        " samples: {path: s.jsonl}}"
    ).comparison
    assert (comparison.pair_timeout_s, comparison.max_pairs, comparison.max_text_bytes) == (5.0, 7, 2048)
    assert comparison.samples == SamplesSettings("s.jsonl", True, 16 << 20)
    judge = comparison.judge
    assert judge is not None
    assert (judge.url, judge.model) == ("http://b:8000/v2/chat/completions", "b")
    assert (judge.timeout_s, judge.max_concurrent, judge.percent_per_10k) == (30.0, 2, 5_000)
    hosted = loaded("comparison: {judge: {model: a}}").comparison.judge
    assert hosted is not None
    assert hosted.url == "https://api.openai.com/v1/chat/completions"
    assert hosted.credential is not None


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ("comparison: {judge: {model: mesh/c}}", "nothing says where the judge"),
        ("comparison: {judge: {model: nobody}}", "there is no provider"),
        ("comparison: {judge: {}}", 'this judge has no "model"'),
        ("comparison: {samples: {}}", 'has no "path"'),
        ("comparison: {max_pairs: 0}", "must be from 1"),
        (policies(", shadow: [{model: b, percent: 1, max_concurrent: 0}]"), "must be from 1"),
        (policies(", shadow: [{model: b, percent: 1, max_bodies: 1KiB}]"), "unknown key"),
    ],
)
def test_what_is_wrong_is_said(rest: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        loaded(rest)


@pytest.mark.parametrize(
    "price", ["{input_per_million: -1, output_per_million: 2}", "{input_per_million: 1}"]
)
def test_a_price_has_both_parts_and_is_not_negative(price: str) -> None:
    text = f"model_providers: [{{model: openai/a, default: true, price: {price}}}]"
    with pytest.raises(ConfigError):
        load_text(text, "f", {}, lambda: b"")
