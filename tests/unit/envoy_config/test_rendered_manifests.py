"""Manifests for Istio and Envoy Gateway: valid by their published schemas, errors for what cannot be said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ext_proc.config.load import load_text
from ext_proc.core.settings import Address, Configuration, Pipe
from ext_proc.envoy_config import CannotRender, Place, render_envoy_gateway, render_istio
from tests.support.schemas import problems

ROOT = Path(__file__).parents[3]
EXAMPLES = [ROOT / "envoy/istio/istio.yaml", ROOT / "envoy/gateway/envoy-gateway.yaml"]
SERVERS = (Address("arch.llm.svc.cluster.local", 50051),)
PLACE = Place("llm", "some")


def configuration(text: str) -> Configuration:
    text += "affinity: {salt: 0123456789abcdef}\n"
    return load_text(text, "f", {"KEY": "k", "TOKEN": "a-token-of-some-length"}, lambda: b"").configuration


def istio(text: str, servers: tuple[Address | Pipe, ...] = SERVERS) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(render_istio(configuration(text), servers, PLACE)))


def envoy_gateway(text: str, servers: tuple[Address | Pipe, ...] = SERVERS) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(render_envoy_gateway(configuration(text), servers, PLACE)))


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [entry for entry in manifests if entry["kind"] == kind]


MANY = "model_providers:\n  - {model: openai/a, default: true}\n" + "".join(
    f"  - {{model: v/m{number}, base_url: 'http://h{number}.corp'}}\n" for number in range(40)
)
ISTIO = """
model_providers:
  - {model: openai/a, default: true, access_key: $KEY}
  - {model: v/inside, base_url: 'http://qwen.models.svc.cluster.local:8000/v1'}
  - {model: v/named, base_url: 'https://llm.corp', cluster: theirs}
  - {model: v/elsewhere, cluster: 'outbound|80||x.corp'}
envoy: {cluster_naming: istio}
"""


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_manifest_fits_the_schema_of_its_kind(file: Path) -> None:
    manifests = list(yaml.safe_load_all(file.read_text()))
    assert [found for entry in manifests for found in problems(entry)] == []
    assert len({(entry["kind"], entry["metadata"]["name"]) for entry in manifests}) == len(manifests)


def test_the_schemas_find_what_is_wrong() -> None:
    (rule, *_) = of_kind(istio(ISTIO), "DestinationRule")
    rule["spec"]["trafficPolicy"]["tlss"] = {}
    (found,) = problems(rule)
    assert "tlss" in found


def test_istio_learns_of_hosts_outside_the_mesh_and_of_no_others() -> None:
    manifests = istio(ISTIO)
    assert [entry["spec"]["hosts"] for entry in of_kind(manifests, "ServiceEntry")] == [["api.openai.com"]]
    rules = {entry["spec"]["host"]: entry["spec"] for entry in of_kind(manifests, "DestinationRule")}
    assert set(rules) == {"api.openai.com", "arch.llm.svc.cluster.local"}
    assert rules["api.openai.com"]["workloadSelector"] == {"matchLabels": {"istio": "some"}}


def test_the_server_and_istio_call_clusters_the_same() -> None:
    snapshot = configuration(ISTIO).snapshot
    assert {target.cluster for target in snapshot.targets.values()} == {
        "outbound|443||api.openai.com",
        "outbound|8000||qwen.models.svc.cluster.local",
        "theirs",
        "outbound|80||x.corp",
    }
    (envoy_filter,) = of_kind(istio(ISTIO), "EnvoyFilter")
    patches = envoy_filter["spec"]["configPatches"]
    (asks, _) = [patch["patch"]["value"] for patch in patches if patch["applyTo"] == "HTTP_FILTER"]
    service = asks["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"]
    assert service == "outbound|50051||arch.llm.svc.cluster.local"


CERTIFICATE = "server: {tls: {certificate: /c, key: /k}}\n"


@pytest.mark.parametrize(
    ("text", "servers", "expected"),
    [
        ("model_providers: [{model: openai/a, default: true}]\n", SERVERS, "none of Istio's"),
        (ISTIO, (Address("10.0.0.1", 1),), "--server NAME"),
        (ISTIO, (*SERVERS, *SERVERS), "--server NAME"),
        (ISTIO, (Pipe("/run/arch.sock"),), "--server NAME"),
        (ISTIO + CERTIFICATE, SERVERS, "Istio's own mTLS"),
        (ISTIO, (Address("localhost", 1),), "--server NAME"),
        (
            ISTIO.replace("https://llm.corp', cluster: theirs", "http://10.1.1.1'"),
            SERVERS,
            "address 10.1.1.1",
        ),
    ],
)
def test_what_istio_cannot_be_told_is_said(
    text: str, servers: tuple[Address | Pipe, ...], expected: str
) -> None:
    with pytest.raises(CannotRender, match=expected):
        istio(text, servers)


def test_envoy_gateway_needs_to_know_every_host() -> None:
    text = "model_providers: [{model: openai/a, default: true}, {model: v/b, cluster: theirs}]\n"
    with pytest.raises(CannotRender, match='"v/b"'):
        envoy_gateway(text)
    with pytest.raises(CannotRender, match=r"not 10\.1\.1\.1"):
        envoy_gateway("model_providers: [{model: v/b, default: true, base_url: 'https://10.1.1.1'}]\n")


def test_envoy_gateway_has_no_place_for_what_proves_envoy_to_the_server() -> None:
    text = "model_providers: [{model: openai/a, default: true}]\n"
    with pytest.raises(CannotRender, match="trust_network"):
        envoy_gateway(text + CERTIFICATE)
    with pytest.raises(CannotRender, match="trust_network"):
        envoy_gateway(text + "server: {token: $TOKEN}\n")
    with pytest.raises(CannotRender, match="HOST:PORT"):
        envoy_gateway(text, (Pipe("/run/arch.sock"),))
    with pytest.raises(CannotRender, match="body_mode"):
        envoy_gateway(text + "envoy: {body_mode: streamed}\n")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_envoy_gateway_gets_no_server_that_a_pod_would_look_for_in_itself(host: str) -> None:
    text = "model_providers: [{model: openai/a, default: true}]\n"
    with pytest.raises(CannotRender, match="write --server NAME"):
        envoy_gateway(text, (*SERVERS, Address(host, 50051)))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
@pytest.mark.parametrize("render", [istio, envoy_gateway])
def test_no_provider_is_looked_for_in_a_gateways_own_pod(
    render: Callable[[str], list[dict[str, Any]]], host: str
) -> None:
    text = f"model_providers: [{{model: v/b, default: true, cluster: b, base_url: 'http://{host}:8000'}}]\n"
    with pytest.raises(CannotRender, match=r"provider in themselves.*base_url"):
        render(text)


def test_the_gateway_of_istio_shows_the_servers_token() -> None:
    (envoy_filter,) = of_kind(istio(ISTIO + "server: {token: $TOKEN}\n"), "EnvoyFilter")
    (merged,) = [
        entry["patch"]["value"]
        for entry in envoy_filter["spec"]["configPatches"]
        if (entry["applyTo"], entry["patch"]["operation"]) == ("CLUSTER", "MERGE")
    ]
    assert "%ENVIRONMENT(TOKEN)%" in str(merged["typed_extension_protocol_options"])


def test_no_route_has_more_rules_than_the_gateway_api_allows_and_each_cluster_has_its_own() -> None:
    manifests = envoy_gateway(MANY)
    assert [found for entry in manifests for found in problems(entry)] == []
    rules = [entry["spec"]["rules"] for entry in of_kind(manifests, "HTTPRoute")]
    assert max(map(len, rules)) == 16
    wanted = [
        match["headers"][0]["value"]
        for each in rules
        for rule in each
        for match in rule["matches"]
        if "headers" in match
    ]
    clusters = {target.cluster for target in configuration(MANY).snapshot.targets.values()}
    assert sorted(wanted) == sorted([*clusters, "arch-undecided"])


def test_the_limit_of_a_cluster_is_that_of_its_rules() -> None:
    manifests = envoy_gateway("model_providers: [{model: openai/a, default: true, max_requests: 7}]\n")
    policies = {
        entry["metadata"]["name"]: entry["spec"] for entry in of_kind(manifests, "BackendTrafficPolicy")
    }
    limited = policies["arch-ext-proc-api-openai-com-443"]
    assert limited["circuitBreaker"]["maxParallelRequests"] == 7
    named = {(reference["name"], reference["sectionName"]) for reference in limited["targetRefs"]}
    there = {
        (entry["metadata"]["name"], rule["name"])
        for entry in of_kind(manifests, "HTTPRoute")
        for rule in entry["spec"]["rules"]
    }
    assert named == there


def test_a_provider_that_takes_the_clients_key_is_given_it_by_the_undecided_route_too() -> None:
    text = "model_providers: [{model: openai/a, default: true, passthrough_auth: true}]\n"
    (route,) = [
        entry
        for entry in of_kind(envoy_gateway(text), "HTTPRoute")
        if entry["metadata"]["name"].endswith("-undecided")
    ]
    (modifier,) = [
        found["requestHeaderModifier"]
        for found in route["spec"]["rules"][0]["filters"]
        if found["type"] == "RequestHeaderModifier"
    ]
    assert modifier == {
        "remove": ["x-arch-cluster", "x-arch-try-arm", "x-arch-try-key", "proxy-authorization", "cookie"]
    }
