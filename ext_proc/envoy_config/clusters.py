"""Clusters: the providers, their shadows, and the ext_proc servers themselves."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    TransportSocket,
)
from envoy_data_plane.envoy.config.core.v3 import HttpProtocolOptions as CommonHttpOptions
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CertificateValidationContextSystemRootCerts,
    CommonTlsContext,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsAutoHttpConfig,
    HttpProtocolOptionsExplicitHttpConfig,
)

from ext_proc.core.settings import Address, Configuration, Upstream
from ext_proc.core.types import Shadow
from ext_proc.envoy_config.filters import shadow_ext_proc, upstream_codec
from ext_proc.envoy_config.typed import address, pack, seconds

CONNECT_TIMEOUT_S = 5.0
SERVER_CONNECT_TIMEOUT_S = 0.25
"""The server is near. When it is down, a refused connection fails open at once; this bounds the rest."""

MANY = 1 << 20
"""Envoy's default circuit breakers stop at 1,024 requests: that many open LLM streams are no fault."""

IDLE_TIMEOUT_S = 60.0
"""Shorter than the providers' own, so that no request is sent on a connection about to be closed."""

_H2_WINDOW_BYTES = 1 << 24
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def providers(configuration: Configuration) -> list[Cluster]:
    """One cluster per provider host that `base_url` tells."""
    return [
        _provider(upstream, configuration, upstream.cluster, HttpProtocolOptions())
        for upstream in configuration.upstreams
    ]


def shadows(configuration: Configuration) -> list[Cluster]:
    """One cluster per shadow target: the provider's hosts behind a filter that rewrites the copies."""
    upstreams = {upstream.cluster: upstream for upstream in configuration.upstreams}
    clusters = []
    for shadow in shadows_of(configuration):
        upstream = upstreams.get(shadow.target.cluster)
        if upstream is not None:
            filters = [shadow_ext_proc(configuration, shadow.target), upstream_codec()]
            options = HttpProtocolOptions(http_filters=filters)
            clusters.append(_provider(upstream, configuration, shadow.cluster, options))
    return clusters


def shadows_of(configuration: Configuration) -> Iterable[Shadow]:
    """Every shadow of the configuration, each target once."""
    routes = configuration.snapshot.routes.values()
    return {shadow.target.name: shadow for route in routes for shadow in route.shadows}.values()


def server(configuration: Configuration, servers: tuple[Address, ...]) -> Cluster:
    """The ext_proc servers: one endpoint per process, so that Envoy balances the streams."""
    return Cluster(
        name=configuration.envoy.ext_proc_cluster,
        connect_timeout=seconds(SERVER_CONNECT_TIMEOUT_S),
        circuit_breakers=_generous(),
        # A body passes through whole, in both directions.
        per_connection_buffer_limit_bytes=configuration.envoy.body_limit_bytes,
        typed_extension_protocol_options={
            _OPTIONS: pack(
                HttpProtocolOptions(
                    explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
                        http2_protocol_options=Http2ProtocolOptions(
                            initial_stream_window_size=_H2_WINDOW_BYTES,
                            initial_connection_window_size=_H2_WINDOW_BYTES,
                        )
                    )
                )
            )
        },
        type=_discovery(*(listen.host for listen in servers)),
        load_assignment=_endpoints(configuration.envoy.ext_proc_cluster, servers),
    )


def _provider(
    upstream: Upstream, configuration: Configuration, name: str, options: HttpProtocolOptions
) -> Cluster:
    options.common_http_protocol_options = CommonHttpOptions(idle_timeout=seconds(IDLE_TIMEOUT_S))
    if upstream.tls:
        options.auto_config = HttpProtocolOptionsAutoHttpConfig()
    else:
        options.explicit_http_config = HttpProtocolOptionsExplicitHttpConfig(
            http_protocol_options=Http1ProtocolOptions()
        )
    return Cluster(
        name=name,
        connect_timeout=seconds(CONNECT_TIMEOUT_S),
        circuit_breakers=_generous(),
        per_connection_buffer_limit_bytes=configuration.envoy.body_limit_bytes,
        typed_extension_protocol_options={_OPTIONS: pack(options)},
        transport_socket=_tls(upstream.host) if upstream.tls else None,
        type=_discovery(upstream.host),
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        load_assignment=_endpoints(name, (Address(upstream.host, upstream.port),)),
    )


def _discovery(*hosts: str) -> ClusterDiscoveryType:
    return ClusterDiscoveryType.STATIC if all(map(_is_ip, hosts)) else ClusterDiscoveryType.STRICT_DNS


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _endpoints(cluster: str, addresses: tuple[Address, ...]) -> ClusterLoadAssignment:
    endpoints = [LbEndpoint(endpoint=Endpoint(address=address(listen))) for listen in addresses]
    return ClusterLoadAssignment(
        cluster_name=cluster, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)]
    )


def _generous() -> CircuitBreakers:
    return CircuitBreakers(
        thresholds=[
            CircuitBreakersThresholds(max_connections=MANY, max_pending_requests=MANY, max_requests=MANY)
        ]
    )


def _tls(host: str) -> TransportSocket:
    context = UpstreamTlsContext(
        sni=host,
        auto_sni_san_validation=True,
        common_tls_context=CommonTlsContext(
            validation_context=CertificateValidationContext(
                system_root_certs=CertificateValidationContextSystemRootCerts()
            )
        ),
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=pack(context))
