"""What Envoy is told where bodies come in pieces, and that nothing of it is said where they do not."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ext_proc.core.settings import BODY_GROWTH_BYTES, Address
from ext_proc.envoy_config import render_bootstrap, render_filter
from tests.support.builders import a_configuration

SERVERS = (Address("127.0.0.1", 1),)
MIB = 1 << 20


def rendered(**envoy: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The listener, the filter and the server's cluster."""
    everything = yaml.safe_load(render_bootstrap(a_configuration(**envoy), SERVERS))["static_resources"]
    (listener,) = everything["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    cluster = next(each for each in everything["clusters"] if each["name"] == "arch_ext_proc")
    return listener, manager, cluster


def keepalive(cluster: dict[str, Any]) -> Any:
    (options,) = cluster["typed_extension_protocol_options"].values()
    return options["explicit_http_config"]["http2_protocol_options"].get("connection_keepalive")


@pytest.mark.parametrize("limit", [MIB // 2, 32 * MIB])
def test_a_streamed_body_comes_in_pieces_and_is_kept_for_routes_up_to_the_limit(limit: int) -> None:
    listener, manager, cluster = rendered(streams_bodies=True, body_limit_bytes=limit)
    assert listener["per_connection_buffer_limit_bytes"] == min(limit, MIB)
    (host,) = manager["route_config"]["virtual_hosts"]
    kept = limit + BODY_GROWTH_BYTES
    assert {route["request_body_buffer_limit"] for route in host["routes"]} in ({kept}, {str(kept)})
    first = manager["http_filters"][0]["typed_config"]
    mode = first["processing_mode"]
    assert (mode["request_body_mode"], mode["request_trailer_mode"]) == ("FULL_DUPLEX_STREAMED", "SEND")
    assert first["failure_mode_allow"]
    assert first["status_on_error"] == {"code": "ServiceUnavailable"}
    assert "allow_mode_override" not in first
    assert cluster["health_checks"][0]["interval"] == "0.250s"
    assert keepalive(cluster) == {"interval": "1s", "timeout": "1s"}


def test_a_buffered_body_comes_whole() -> None:
    listener, manager, cluster = rendered()
    assert listener["per_connection_buffer_limit_bytes"] == 32 * MIB + BODY_GROWTH_BYTES
    (host,) = manager["route_config"]["virtual_hosts"]
    assert not any("request_body_buffer_limit" in route for route in host["routes"])
    mode = manager["http_filters"][0]["typed_config"]["processing_mode"]
    assert (mode["request_body_mode"], mode["request_trailer_mode"]) == ("BUFFERED", "SKIP")
    assert keepalive(cluster) is None


def test_a_ping_may_wait_as_long_as_a_message() -> None:
    assert keepalive(rendered(streams_bodies=True, message_timeout_s=3.0)[2])["timeout"] == "3s"


def test_the_pieces_for_another_envoy_say_what_the_listeners_limit_is() -> None:
    pieces = render_filter(a_configuration(streams_bodies=True), SERVERS)
    assert "in pieces of at most this size" in pieces
    assert "413" not in pieces
