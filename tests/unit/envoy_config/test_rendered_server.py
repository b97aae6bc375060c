"""How Envoy reaches the server: TLS, names, the token's variable, sockets."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from ext_proc.config.load import load_text
from ext_proc.core import headers
from ext_proc.core.rewrite import AUTH_HEADERS
from ext_proc.core.settings import Address, Pipe
from ext_proc.envoy_config import render_bootstrap
from ext_proc.envoy_config.filters import DANGEROUS, WRITTEN

BASE = "model_providers: [{model: openai/a, default: true}]\naffinity: {salt: 0123456789abcdef}\n"
TLS = "tls: {certificate: s.crt, key: s.key}"
LOOPBACK = Address("127.0.0.1", 1)
TOKEN = "the-token-itself-0123456789"


def cluster(text: str, *servers: Address | Pipe) -> dict[str, Any]:
    configuration = load_text(BASE + text, "f", {"TOKEN": TOKEN}, lambda: b"").configuration
    rendered = render_bootstrap(configuration, servers)
    assert TOKEN not in rendered
    clusters = yaml.safe_load(rendered)["static_resources"]["clusters"]
    (found,) = (each for each in clusters if each["name"] == "arch_ext_proc")
    return dict(found)


def names(found: dict[str, Any]) -> list[tuple[str, str]]:
    common = found["transport_socket"]["typed_config"]["common_tls_context"]
    matchers = common["validation_context"]["match_typed_subject_alt_names"]
    return [(each["san_type"], each["matcher"]["exact"]) for each in matchers]


def test_without_tls_there_is_none() -> None:
    assert "transport_socket" not in cluster("", LOOPBACK)


def test_the_server_must_have_the_name_of_its_address() -> None:
    hosts = (Address("127.0.0.1", 1), Address("arch.internal", 1), Address("arch.internal", 2))
    found = cluster(f"server: {{{TLS}}}", *hosts)
    assert names(found) == [("IP_ADDRESS", "127.0.0.1"), ("DNS", "arch.internal")]
    tls = found["transport_socket"]["typed_config"]
    assert tls["sni"] == "arch.internal"
    common = tls["common_tls_context"]
    assert common["alpn_protocols"] == ["h2"]
    assert common["validation_context"]["trusted_ca"] == {"filename": "/etc/ssl/certs/ca-certificates.crt"}
    assert "tls_certificates" not in common


@pytest.mark.parametrize(
    ("name", "kind", "sni"),
    [("a.internal", "DNS", "a.internal"), ("spiffe://mesh/arch", "URI", None), ("::1", "IP_ADDRESS", None)],
)
def test_or_the_name_that_the_file_says(name: str, kind: str, sni: str | None) -> None:
    text = f"server: {{{TLS}}}\nenvoy: {{ext_proc_tls: {{name: '{name}', ca: ca, certificate: c, key: k}}}}\n"
    found = cluster(text, Address("arch.internal", 1))
    assert names(found) == [(kind, name)]
    tls = found["transport_socket"]["typed_config"]
    assert tls.get("sni") == sni
    shown = {"certificate_chain": {"filename": "c"}, "private_key": {"filename": "k"}}
    assert tls["common_tls_context"]["tls_certificates"] == [shown]


def test_envoys_own_certificate_may_be_watched() -> None:
    found = cluster(f"server: {{{TLS}}}\nenvoy: {{ext_proc_tls: {{sds: /etc/sds.yaml}}}}\n", LOOPBACK)
    common = found["transport_socket"]["typed_config"]["common_tls_context"]
    (watched,) = common["tls_certificate_sds_secret_configs"]
    assert watched["name"] == "arch_ext_proc"
    assert watched["sds_config"]["path_config_source"] == {"path": "/etc/sds.yaml"}
    assert "tls_certificates" not in common


def test_the_token_is_a_variable_of_envoys() -> None:
    found = cluster("server: {token: $TOKEN}", LOOPBACK)
    (options,) = found["typed_extension_protocol_options"].values()
    mutation, _ = options["http_filters"]
    (change,) = mutation["typed_config"]["mutations"]["request_mutations"]
    assert change["append"]["header"] == {"key": "x-arch-token", "value": "%ENVIRONMENT(TOKEN)%"}


def test_a_socket_is_a_pipe() -> None:
    found = cluster("server: {socket: /run/a.sock}", Pipe("/run/a.sock"))
    (endpoints,) = found["load_assignment"]["endpoints"]
    assert endpoints["lb_endpoints"] == [{"endpoint": {"address": {"pipe": {"path": "/run/a.sock"}}}}]
    assert found.get("type", "STATIC") == "STATIC"


def rules(*credentials: str) -> dict[str, Any]:
    """The mutation rules of the filter that decides, with providers whose keys travel in these headers."""
    text = "model_providers:\n  - {model: openai/a, default: true}\n" + "".join(
        f"  - {{model: own{number}/a, cluster: own, access_key: k, credential_header: {name}}}\n"
        for number, name in enumerate(credentials)
    )
    configuration = load_text(text, "f", {}, lambda: b"").configuration
    (listener,) = yaml.safe_load(render_bootstrap(configuration, (LOOPBACK,)))["static_resources"][
        "listeners"
    ]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return dict(manager["http_filters"][0]["typed_config"]["mutation_rules"])


def may(given: dict[str, Any], name: str) -> bool:
    """What Envoy makes of them."""
    assert given["disallow_all"] is True
    refused = given.get("disallow_expression", {}).get("regex", "$^")
    return bool(re.fullmatch(given["allow_expression"]["regex"], name)) and not re.fullmatch(refused, name)


NEVER = (
    *(":method", ":scheme", "host", "cookie", "connection", "te", "upgrade", "transfer-encoding"),
    *("x-envoy-retry-on", "x-forwarded-for", "x-forwarded-proto"),
)


@pytest.mark.parametrize("credentials", [(), ("x-my-own-key",), ("x-my-own-key", "x-quite-another-key")])
def test_the_server_may_change_what_it_writes(credentials: tuple[str, ...]) -> None:
    given = rules(*credentials)
    written = (*headers.DECISION, *AUTH_HEADERS, ":path", ":authority", "content-length", "content-encoding")
    assert all(may(given, name) for name in (*written, *credentials))
    assert not any(may(given, name) for name in NEVER)
    if len(credentials) < 2:
        assert not may(given, "x-of-the-application")


def test_the_names_fit_into_envoys_regex() -> None:
    """Envoy itself is asked in the end-to-end tests; this tells why one of them fails."""
    assert not set(AUTH_HEADERS) - {name for name in AUTH_HEADERS if re.fullmatch(WRITTEN, name)}
    assert re.fullmatch(DANGEROUS, "host")
    assert rules("x-my-own-key")["allow_expression"]["regex"] == f"{WRITTEN}|x\\-my\\-own\\-key"


def test_one_that_takes_no_connection_is_passed_over_though_never_the_only_one() -> None:
    found = cluster("", LOOPBACK, Address("127.0.0.1", 2))["outlier_detection"]
    assert found["split_external_local_origin_errors"] is True
    assert found["consecutive_local_origin_failure"] == 1
    assert found["max_ejection_percent"] == 50
    enforced = {name for name, value in found.items() if name.startswith("enforcing_") and value}
    assert enforced == {"enforcing_consecutive_local_origin_failure"}
