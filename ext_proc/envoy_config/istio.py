"""Istio's side: a gateway's pods as an `EnvoyFilter` makes them, and how Istio learns of the providers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ext_proc.core.settings import Address, Configuration, Pipe, Upstream
from ext_proc.envoy_config import clusters, filters, routes
from ext_proc.envoy_config.break_log import break_log
from ext_proc.envoy_config.chains import chains
from ext_proc.envoy_config.listener import buffer_limit
from ext_proc.envoy_config.manifests import (
    NAME,
    CannotRender,
    Manifest,
    Place,
    is_name,
    label,
    manifest,
    refuse_loopback,
)
from ext_proc.envoy_config.typed import as_dict

_API = "networking.istio.io/v1"
_FILTERS_API = "networking.istio.io/v1alpha3"
_MANAGER = "envoy.filters.network.http_connection_manager"
_MANAGER_TYPE = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
_INSIDE = ".svc.cluster.local"
"""Hosts that Istio knows without being told."""

_OF_SERVER = (
    "health_checks",
    "common_lb_config",
    "outlier_detection",
    "circuit_breakers",
    "per_connection_buffer_limit_bytes",
    "typed_extension_protocol_options",
)
"""What the cluster of the servers gets beyond what Istio gives it."""


def cluster_name(host: str, port: int) -> str:
    """Istio's name for a service's port, no subset of it."""
    return f"outbound|{port}||{host}"


def manifests(
    configuration: Configuration, servers: tuple[Address | Pipe, ...], place: Place, ca_file: str
) -> list[Manifest]:
    """Errors: CannotRender."""
    if configuration.server.tls is not None:
        text = "Istio's own mTLS is between gateway and server, if the mesh has it: leave server.tls out"
        raise CannotRender(f"{text}, and write server.token, or server.trust_network: true")
    (server,) = servers if len(servers) == 1 else (None,)
    if not isinstance(server, Address) or not is_name(server.host) or "." not in server.host:
        raise CannotRender(
            "Istio finds servers by one service: write --server NAME.NAMESPACE.svc.cluster.local:PORT"
        )
    refuse_loopback(configuration.upstreams)
    named = replace(configuration.envoy, ext_proc_cluster=cluster_name(server.host, server.port))
    configuration = replace(configuration, envoy=named)
    outside = [upstream for upstream in configuration.upstreams if not upstream.host.endswith(_INSIDE)]
    for upstream in outside:
        if upstream.cluster == cluster_name(upstream.host, upstream.port) and not is_name(upstream.host):
            text = f"Istio has no cluster for the address {upstream.host}: write the host's name in base_url"
            raise CannotRender(text)
    return [
        _gateway(configuration, place),
        _virtual_service(configuration, place),
        *(entry for upstream in outside for entry in _service(upstream, place)),
        _server_rule(server, place),
        _envoy_filter(configuration, server, place, ca_file),
    ]


def _gateway(configuration: Configuration, place: Place) -> Manifest:
    port = configuration.envoy.listener.port
    why = (
        f"A port of its own, on the pods labelled istio={place.gateway}; every host, because Envoy looks\n"
        "for the virtual host again when a request has its provider's. Add the port to the gateway's Service."
    )
    servers = [{"port": {"number": port, "name": "http-llm", "protocol": "HTTP"}, "hosts": ["*"]}]
    return manifest(
        why,
        _API,
        "Gateway",
        NAME,
        place.namespace,
        {"selector": {"istio": place.gateway}, "servers": servers},
    )


def _virtual_service(configuration: Configuration, place: Place) -> Manifest:
    """Istio makes a virtual host for it; the routes that count are put before this one."""
    host, port = _destination(configuration)
    why = "The virtual host that the routes below are put into. Its own route is never reached."
    route = [{"destination": {"host": host, "port": {"number": port}}}]
    spec = {"hosts": ["*"], "gateways": [NAME], "http": [{"name": "default", "route": route}]}
    return manifest(why, _API, "VirtualService", NAME, place.namespace, spec)


def _destination(configuration: Configuration) -> tuple[str, int]:
    cluster = configuration.snapshot.default.cluster
    direction, port, *_, host = cluster.split("|") if cluster.count("|") == 3 else ("", "", "")
    if direction != "outbound" or not port.isdecimal():
        text = f"the default provider's cluster \"{cluster}\" is none of Istio's"
        raise CannotRender(f"{text}: write envoy: {{cluster_naming: istio}}, or cluster: outbound|443||HOST")
    return host, int(port)


def _service(upstream: Upstream, place: Place) -> list[Manifest]:
    """A provider outside the mesh, for this namespace alone, and its TLS, for the gateway's pods alone."""
    if upstream.cluster != cluster_name(upstream.host, upstream.port):
        return []
    host, port = upstream.host, upstream.port
    protocol = "HTTPS" if upstream.tls else "HTTP"
    entry = {
        "hosts": [host],
        "exportTo": ["."],
        "location": "MESH_EXTERNAL",
        "resolution": "DNS",
        "ports": [{"number": port, "name": f"{protocol.lower()}-{port}", "protocol": protocol}],
    }
    name = f"{NAME}-{label(host)}-{port}"
    why = f"Makes Istio have the cluster {upstream.cluster}."
    found = [manifest(why, _API, "ServiceEntry", name, place.namespace, entry)]
    policy: dict[str, Any] = {}
    if upstream.max_requests is not None:
        policy["connectionPool"] = {"http": {"http2MaxRequests": upstream.max_requests}}
    if upstream.tls:
        policy["tls"] = {"mode": "SIMPLE", "sni": host}
    if policy:
        rule = {
            "host": host,
            "exportTo": ["."],
            "workloadSelector": {"matchLabels": {"istio": place.gateway}},
            "trafficPolicy": {"portLevelSettings": [{"port": {"number": port}, **policy}]},
        }
        why = "For the gateway's pods alone: others in the namespace may speak TLS to this host themselves."
        found.append(manifest(why, _API, "DestinationRule", name, place.namespace, rule))
    return found


def _server_rule(server: Address, place: Place) -> Manifest:
    rule = {
        "host": server.host,
        "exportTo": ["."],
        "trafficPolicy": {
            "loadBalancer": {"simple": "LEAST_REQUEST"},
            "connectionPool": {"tcp": {"connectTimeout": f"{clusters.SERVER_CONNECT_TIMEOUT_S}s"}},
        },
    }
    why = "How the gateway reaches the servers; mTLS is as the mesh has it. Name the Service's port grpc."
    return manifest(why, _API, "DestinationRule", NAME, place.namespace, rule)


def _envoy_filter(configuration: Configuration, server: Address, place: Place, ca_file: str) -> Manifest:
    port = configuration.envoy.listener.port
    early = as_dict(filters.own_headers(configuration))
    manager = {
        "@type": _MANAGER_TYPE,
        "early_header_mutation_extensions": [early],
        "access_log": [as_dict(break_log(configuration))],
    }
    of_server = as_dict(clusters.server(configuration, (server,)))
    added = [*clusters.shadows(configuration, ca_file), *chains(configuration, ca_file)]
    patches = [
        _patch("LISTENER", _listener(port), "MERGE", _limit(configuration)),
        _patch(
            "NETWORK_FILTER",
            _listener(port, {"name": _MANAGER}),
            "MERGE",
            {"name": _MANAGER, "typed_config": manager},
        ),
        *(
            _patch("HTTP_FILTER", _before_router(port), "INSERT_BEFORE", as_dict(added_filter))
            for added_filter in (filters.ext_proc(configuration), filters.observe_ext_proc(configuration))
        ),
        # Each is put first, so the last of them comes out on top.
        *(
            _patch("HTTP_ROUTE", _virtual_host(port), "INSERT_FIRST", as_dict(route))
            for route in reversed(routes.routes(configuration))
        ),
        _patch(
            "CLUSTER",
            {"cluster": {"service": server.host, "portNumber": server.port}},
            "MERGE",
            {key: of_server[key] for key in _OF_SERVER},
        ),
        *(_patch("CLUSTER", {}, "ADD", as_dict(cluster)) for cluster in added),
    ]
    why = (
        "What the gateway's Envoy gets: the default cluster before routing, two filters, the routes, health\n"
        "checks of the servers and, if policies have shadows or fallbacks, their clusters."
    )
    spec = {"workloadSelector": {"labels": {"istio": place.gateway}}, "configPatches": patches}
    return manifest(why, _FILTERS_API, "EnvoyFilter", NAME, place.namespace, spec)


def _patch(to: str, where: Mapping[str, Any], operation: str, value: Mapping[str, Any]) -> dict[str, Any]:
    match = {"context": "GATEWAY", **where}
    return {"applyTo": to, "match": match, "patch": {"operation": operation, "value": dict(value)}}


def _limit(configuration: Configuration) -> dict[str, int]:
    return {"per_connection_buffer_limit_bytes": buffer_limit(configuration)}


def _listener(port: int, network_filter: Mapping[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"portNumber": port}
    if network_filter is not None:
        found["filterChain"] = {"filter": dict(network_filter)}
    return {"listener": found}


def _before_router(port: int) -> dict[str, Any]:
    return _listener(port, {"name": _MANAGER, "subFilter": {"name": "envoy.filters.http.router"}})


def _virtual_host(port: int) -> dict[str, Any]:
    """Istio calls a virtual host by its host and port."""
    return {"routeConfiguration": {"portNumber": port, "vhost": {"name": f"*:{port}"}}}
