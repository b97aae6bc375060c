"""Envoy's own choice among the weighted clusters that are rendered is this server's, for every key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ext_proc.config.load import load_text
from ext_proc.core.affinity import bucket_of
from ext_proc.core.settings import Configuration
from ext_proc.core.split import choose_arm
from ext_proc.envoy_config.routes import routes
from ext_proc.envoy_config.typed import as_dict

KEYS = 100_000
MODELS = ("openai/a", "groq/b", "mistral/c", "xai/d")


def split_by_envoy(weights: Sequence[float]) -> Configuration:
    providers = [f"{{model: {model}, default: {str(model == MODELS[0]).lower()}}}" for model in MODELS]
    targets = [
        f"{{model: {model}, weight: {weight}}}" for model, weight in zip(MODELS, weights, strict=False)
    ]
    policy = f"{{name: code, description: d, split: envoy, targets: [{', '.join(targets)}]}}"
    text = (
        f"model_providers: [{', '.join(providers)}]\n"
        f"routing_preferences: [{policy}]\n"
        "affinity: {salt: 0123456789abcdef}\n"
    )
    return load_text(text, "f", {}, lambda: b"").configuration


def rendered_split(configuration: Configuration) -> dict[str, Any]:
    found, unobserved = [
        split
        for route in map(as_dict, routes(configuration))
        if (split := route["route"].get("weighted_clusters"))
    ]
    assert found == unobserved
    assert isinstance(found, dict)
    return found


def envoys_choice(split: dict[str, Any], header: str) -> str:
    """Source: pickWeightedCluster in Envoy's source/common/router."""
    selected = int(header) % sum(cluster.get("weight", 0) for cluster in split["clusters"])
    begin = 0
    for cluster in split["clusters"]:
        end = begin + cluster.get("weight", 0)
        if begin <= selected < end:
            return str(cluster["name"])
        begin = end
    raise AssertionError("the weights do not reach the number")


@pytest.mark.parametrize(
    "weights", [(90, 10), (0, 100), (99.99, 0.01), (62.5, 20, 17.5), (25, 0, 25, 50), (1, 1, 1)]
)
def test_envoy_picks_the_arm_that_this_server_would_for_100_000_keys(weights: tuple[float, ...]) -> None:
    configuration = split_by_envoy(weights)
    split, arms = rendered_split(configuration), configuration.snapshot.routes["code"].arms
    assert (split["header_name"], split["runtime_key_prefix"]) == ("x-arch-bucket", "arch.split")
    buckets = [bucket_of(b"pin:%d" % number, "code", b"salt") for number in range(KEYS)]
    assert [envoys_choice(split, str(bucket)) for bucket in buckets] == [
        f"arch-arm/code/{choose_arm(arms, bucket).name}" for bucket in buckets
    ]
