"""Envoy Gateway's side: a Gateway with routes by what the server decided, in Envoy Gateway's own resources.

What those cannot say is one `EnvoyPatchPolicy`, in `gateway_patch.py`. Source: Envoy Gateway's API
(`v1alpha1`) and the way it translates that, the Gateway API v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ext_proc.core import headers
from ext_proc.core.settings import Address, Configuration, Pipe, Upstream
from ext_proc.envoy_config import clusters
from ext_proc.envoy_config.gateway_patch import patch_policy
from ext_proc.envoy_config.gateway_routes import UNDECIDED, UNDECIDED_ROUTE, backend_of, routes
from ext_proc.envoy_config.manifests import (
    NAME,
    CannotRender,
    Manifest,
    Place,
    is_name,
    manifest,
    refuse_loopback,
)

_GATEWAY_API = "gateway.networking.k8s.io"
_API = "gateway.envoyproxy.io/v1alpha1"
_LISTENER = "http"
_SERVER = f"{NAME}-server"


def manifests(
    configuration: Configuration, servers: tuple[Address | Pipe, ...], place: Place, ca_file: str
) -> list[Manifest]:
    """Errors: CannotRender."""
    if configuration.server.tls is not None or configuration.server.token is not None:
        text = "Envoy Gateway's extProc has no place for a token or for Envoy's own certificate"
        raise CannotRender(
            f"{text}: write server.trust_network: true, and let a NetworkPolicy keep others out"
        )
    if configuration.envoy.streams_bodies:
        raise CannotRender("Envoy Gateway is rendered for buffered bodies only: leave out envoy.body_mode")
    reached = tuple(server for server in servers if isinstance(server, Address))
    if len(reached) < len(servers):
        raise CannotRender("Envoy's pods share no socket with the server: write --server HOST:PORT")
    if loopback := [server for server in reached if server.is_loopback]:
        text = f"Envoy's pods would look for the server in themselves, at {loopback[0]}"
        raise CannotRender(
            f"{text}: write --server NAME.NAMESPACE.svc.cluster.local:PORT, its headless Service"
        )
    refuse_loopback(configuration.upstreams)
    known = {upstream.cluster for upstream in configuration.upstreams}
    for target in configuration.snapshot.targets.values():
        if target.cluster not in known:
            text = f'no base_url says where "{target.name}" is served: a Backend needs its host and port'
            raise CannotRender(text)
    cluster = f"envoyextensionpolicy/{place.namespace}/{NAME}/extproc/0"
    configuration = replace(configuration, envoy=replace(configuration.envoy, ext_proc_cluster=cluster))
    variable = configuration.envoy.failure_credential_env
    found = routes(configuration, place)
    return [
        *([_proxy(variable, place)] if variable else []),
        _gateway(configuration, place, has_proxy=variable is not None),
        _client_policy(configuration, place),
        *(entry for upstream in configuration.upstreams for entry in _backend(upstream, place)),
        _server_backend(reached, place),
        *found.manifests,
        _extension_policy(configuration, place),
        *_traffic_policies(configuration, place, found.rules_of_cluster),
        patch_policy(configuration, place, _LISTENER, found, ca_file),
    ]


def _proxy(variable: str, place: Place) -> Manifest:
    reference = {"secretKeyRef": {"name": NAME, "key": variable, "optional": True}}
    container = {"env": [{"name": variable, "valueFrom": reference}]}
    why = (
        f"The default provider's key for requests that reach no server, from the Secret {NAME} in the\n"
        "namespace that Envoy's own pods run in."
    )
    kubernetes = {"envoyDeployment": {"container": container}}
    provider = {"provider": {"type": "Kubernetes", "kubernetes": kubernetes}}
    return manifest(why, _API, "EnvoyProxy", NAME, place.namespace, provider)


def _gateway(configuration: Configuration, place: Place, *, has_proxy: bool) -> Manifest:
    spec: dict[str, Any] = {"gatewayClassName": place.gateway}
    if has_proxy:
        reference = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": NAME}
        spec["infrastructure"] = {"parametersRef": reference}
    spec["listeners"] = [
        {"name": _LISTENER, "protocol": "HTTP", "port": configuration.envoy.listener.port},
    ]
    why = "A Gateway of its own, because the policies below hold for all of it."
    return manifest(why, f"{_GATEWAY_API}/v1", "Gateway", NAME, place.namespace, spec)


def _client_policy(configuration: Configuration, place: Place) -> Manifest:
    envoy = configuration.envoy
    removed = [name for name in headers.DECISION if name != headers.CLUSTER]
    early = {"set": [{"name": headers.CLUSTER, "value": UNDECIDED}], "remove": removed}
    limit = _seconds(envoy.request_timeout_s)
    late = [*headers.OF_THE_PROVIDERS_HOP, *([] if envoy.pass_cookies else [headers.COOKIES[1]])]
    spec = {
        "targetRefs": [_reference("Gateway", NAME)],
        "headers": {"earlyRequestHeaders": early, "lateResponseHeaders": {"remove": late}},
        "connection": {"bufferLimit": _bytes(envoy.buffer_limit_bytes)},
        "timeout": {"http": {"streamIdleTimeout": limit, "requestReceivedTimeout": limit}},
    }
    why = (
        "Before any routing clients' own decision headers go, and from answers what providers say to the\n"
        "gateway alone. Larger bodies get 413."
    )
    return manifest(why, _API, "ClientTrafficPolicy", NAME, place.namespace, spec)


def _backend(upstream: Upstream, place: Place) -> list[Manifest]:
    name = backend_of(upstream)
    endpoint = _endpoint(Address(upstream.host, upstream.port))
    why = f"The cluster {upstream.cluster}. Backends need enableBackend in Envoy Gateway's own configuration."
    found = [manifest(why, _API, "Backend", name, place.namespace, {"endpoints": [endpoint]})]
    if upstream.tls:
        if not is_name(upstream.host):
            raise CannotRender(
                f"a BackendTLSPolicy proves names only, not {upstream.host}: write the host's name"
            )
        reference = {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": name}
        validation = {"hostname": upstream.host, "wellKnownCACertificates": "System"}
        spec = {"targetRefs": [reference], "validation": validation}
        kind = "BackendTLSPolicy"
        found.append(manifest("Its TLS.", f"{_GATEWAY_API}/v1", kind, name, place.namespace, spec))
    return found


def _server_backend(servers: tuple[Address, ...], place: Place) -> Manifest:
    why = "The servers: a headless Service's name, so that Envoy balances streams over the pods."
    return manifest(
        why,
        _API,
        "Backend",
        _SERVER,
        place.namespace,
        {"endpoints": [_endpoint(server) for server in servers]},
    )


def _endpoint(address: Address) -> dict[str, Any]:
    if is_name(address.host):
        return {"fqdn": {"hostname": address.host, "port": address.port}}
    return {"ip": {"address": address.host, "port": address.port}}


def _extension_policy(configuration: Configuration, place: Place) -> Manifest:
    check = {
        "type": "GRPC",
        "interval": _seconds(clusters.HEALTH_INTERVAL_S),
        "timeout": _seconds(clusters.HEALTH_INTERVAL_S),
        "unhealthyThreshold": clusters.HEALTH_FAILURES,
        "healthyThreshold": 1,
    }
    settings = {
        "circuitBreaker": _breaker(clusters.MANY),
        "connection": {"bufferLimit": _bytes(configuration.envoy.buffer_limit_bytes)},
        "healthCheck": {"active": check, "panicThreshold": 0},
        "loadBalancer": {"type": "LeastRequest"},
        "timeout": {"tcp": {"connectTimeout": _seconds(clusters.SERVER_CONNECT_TIMEOUT_S)}},
    }
    reference = {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": _SERVER}
    extension = {
        "backendRefs": [reference],
        "backendSettings": settings,
        "failOpen": True,
        "messageTimeout": _seconds(configuration.envoy.message_timeout_s),
        "metadata": {"writableNamespaces": [headers.METADATA_NAMESPACE]},
        "processingMode": {"allowModeOverride": True, "request": {"body": "Buffered"}},
    }
    spec = {"targetRefs": [_reference("HTTPRoute", UNDECIDED_ROUTE)], "extProc": [extension]}
    why = (
        "Asks the server about each LLM call. Without the EnvoyPatchPolicy below it gets all of a request's\n"
        "headers, its credential and cookies too: there is no field for fewer."
    )
    return manifest(why, _API, "EnvoyExtensionPolicy", NAME, place.namespace, spec)


def _traffic_policies(
    configuration: Configuration, place: Place, rules: Mapping[str, list[tuple[str, str]]]
) -> list[Manifest]:
    """Envoy's default of 1,024 requests at a time is lifted, but for clusters with a limit of their own."""
    envoy = configuration.envoy
    common = {
        "connection": {"bufferLimit": _bytes(envoy.buffer_limit_bytes)},
        "timeout": {
            "tcp": {"connectTimeout": _seconds(clusters.CONNECT_TIMEOUT_S)},
            "http": {"connectionIdleTimeout": _seconds(clusters.IDLE_TIMEOUT_S)},
        },
    }
    whole = {
        "targetRefs": [_reference("Gateway", NAME)],
        "circuitBreaker": _breaker(clusters.MANY),
        **common,
    }
    why = "How Envoy reaches the providers."
    found = [manifest(why, _API, "BackendTrafficPolicy", NAME, place.namespace, whole)]
    for upstream in configuration.upstreams:
        if upstream.max_requests is not None:
            references = [
                {**_reference("HTTPRoute", route), "sectionName": rule}
                for route, rule in rules.get(upstream.cluster, [])
            ]
            limited = {"targetRefs": references, "circuitBreaker": _breaker(upstream.max_requests), **common}
            why = f"max_requests of the cluster {upstream.cluster}, for each of these rules."
            name = backend_of(upstream)
            found.append(manifest(why, _API, "BackendTrafficPolicy", name, place.namespace, limited))
    return found


def _breaker(max_requests: int) -> dict[str, int]:
    return {
        "maxConnections": clusters.MANY,
        "maxPendingRequests": clusters.MANY,
        "maxParallelRequests": max_requests,
    }


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"group": _GATEWAY_API, "kind": kind, "name": name}


def _seconds(value: float) -> str:
    """The Gateway API's durations have no fractions."""
    return f"{value:.0f}s" if value == int(value) else f"{value * 1000:.0f}ms"


def _bytes(value: int) -> str:
    return f"{value >> 10}Ki" if value % (1 << 10) == 0 else str(value)
