"""Clusters: the providers, their shadows, and the ext_proc servers themselves."""

from __future__ import annotations

import ipaddress

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterLbPolicy,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import (
    ConfigSource,
    DataSource,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    KeepaliveSettings,
    PathConfigSource,
    TransportSocket,
)
from envoy_data_plane.envoy.config.core.v3 import HttpProtocolOptions as CommonHttpOptions
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import (
    HeaderMutation as HeaderMutationFilter,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    SdsSecretConfig,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsAutoHttpConfig,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import Percent

from ext_proc.core import headers
from ext_proc.core.settings import Address, Configuration, EnvoySettings, Pipe, Upstream
from ext_proc.core.types import Target, copies_cluster
from ext_proc.envoy_config.filters import shadow_ext_proc, upstream_codec
from ext_proc.envoy_config.typed import address, exactly, overwrite, pack, seconds

SYSTEM_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian, Ubuntu, Alpine and the official Envoy images keep the authorities that TLS trusts.

Envoy does not start when the file is missing. It must be named: `system_root_certs` is in the
protocol, but Envoy 1.40 does not implement it.
"""

CONNECT_TIMEOUT_S = 5.0
SERVER_CONNECT_TIMEOUT_S = 0.25
"""The server is near. When it is down, a refused connection fails open at once; this bounds the rest."""

MANY = 1 << 20
"""Envoy's default circuit breakers stop at 1,024 requests: that many open LLM streams are no fault."""

HEALTH_INTERVAL_S = 1.0
HEALTH_INTERVAL_STREAMED_S = 0.25
HEALTH_FAILURES = 2
UNHEALTHY_INTERVAL_S = 0.5
"""A server that died, hangs or drains is out of rotation after some two seconds, and back in half a one."""

EJECTION_SWEEP_S = 0.25
EJECTION_S = 5.0
"""Longer than health checks take to notice; one that passes ends it sooner."""

IDLE_TIMEOUT_S = 60.0
"""Shorter than the providers' own, so that no request is sent on a connection about to be closed."""

PING_INTERVAL_S = 1.0
PING_TIMEOUT_S = 1.0

_H2_WINDOW_BYTES = 1 << 24
SDS_NAME = "arch_ext_proc"
"""What the secret in an SDS file of `envoy.ext_proc_tls.sds` must be called."""

_TLS = "envoy.transport_sockets.tls"
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def providers(configuration: Configuration, ca_file: str) -> list[Cluster]:
    """One cluster per provider host that `base_url` tells."""
    return [
        _provider(upstream, configuration, upstream.cluster, HttpProtocolOptions(), ca_file)
        for upstream in configuration.upstreams
    ]


def shadows(configuration: Configuration, ca_file: str) -> list[Cluster]:
    """One cluster per target of copies: the provider's hosts behind a filter that rewrites the copies.

    Envoy itself bounds the copies on their way too, should whoever decides them lose count.
    """
    upstreams = {upstream.cluster: upstream for upstream in configuration.upstreams}
    clusters = []
    for target, max_concurrent in copied_to(configuration).values():
        upstream = upstreams.get(target.cluster)
        if upstream is not None:
            # This machine's address, which Envoy adds to copies, is nobody's business.
            unsigned = _mutating(HeaderMutation(remove="x-forwarded-for"))
            filters = [unsigned, shadow_ext_proc(configuration, target), upstream_codec()]
            options = HttpProtocolOptions(http_filters=filters)
            cluster = _provider(upstream, configuration, copies_cluster(target), options, ca_file)
            cluster.circuit_breakers = _generous(max_concurrent)
            clusters.append(cluster)
    return clusters


def copied_to(configuration: Configuration) -> dict[str, tuple[Target, int]]:
    """Every target that may get copies, by name, with how many of them may be on their way in all."""
    found: dict[str, tuple[Target, int]] = {}
    for route in configuration.snapshot.routes.values():
        for shadow in route.shadows:
            own = [arm.target for arm in route.arms] if shadow.noise_floor else []
            for target in {target.name: target for target in (shadow.target, *own)}.values():
                _, others = found.get(target.name, (target, 0))
                found[target.name] = target, others + shadow.max_concurrent
    return found


def server(configuration: Configuration, servers: tuple[Address | Pipe, ...]) -> Cluster:
    """The ext_proc servers: one endpoint per process, so that Envoy balances the streams.

    Health checks take a dead or hung one out, so that requests ask the others, or fail open at once
    when it was the last: at a panic threshold of 0 Envoy asks none rather than one that is unhealthy.
    Retries would do less: those of a request that finds no server took the whole message timeout.
    """
    # Envoy does not fail open for a body that is on its way to a server, so it must learn sooner.
    interval_s = HEALTH_INTERVAL_STREAMED_S if configuration.envoy.streams_bodies else HEALTH_INTERVAL_S
    return Cluster(
        name=configuration.envoy.ext_proc_cluster,
        connect_timeout=seconds(SERVER_CONNECT_TIMEOUT_S),
        circuit_breakers=_generous(),
        lb_policy=ClusterLbPolicy.LEAST_REQUEST,
        common_lb_config=ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0.0)),
        health_checks=[
            HealthCheck(
                timeout=seconds(HEALTH_INTERVAL_S),
                interval=seconds(interval_s),
                no_traffic_interval=seconds(interval_s),
                unhealthy_interval=seconds(UNHEALTHY_INTERVAL_S),
                unhealthy_threshold=HEALTH_FAILURES,
                healthy_threshold=1,
                grpc_health_check=HealthCheckGrpcHealthCheck(),
            )
        ],
        outlier_detection=_outlier_detection(),
        # A body passes through whole, in both directions.
        per_connection_buffer_limit_bytes=configuration.envoy.buffer_limit_bytes,
        typed_extension_protocol_options={
            OPTIONS: pack(
                HttpProtocolOptions(
                    http_filters=_token_filters(configuration),
                    explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
                        http2_protocol_options=Http2ProtocolOptions(
                            initial_stream_window_size=_H2_WINDOW_BYTES,
                            initial_connection_window_size=_H2_WINDOW_BYTES,
                            connection_keepalive=_keepalive(configuration.envoy),
                        )
                    ),
                )
            )
        },
        transport_socket=_server_tls(configuration, servers) if configuration.server.tls else None,
        type=discovery(*(listen.host for listen in servers if isinstance(listen, Address))),
        load_assignment=_endpoints(configuration.envoy.ext_proc_cluster, servers),
    )


def _outlier_detection() -> OutlierDetection:
    """Pass over a server that takes no connection until a health check says that it is there, or fails.

    Its few open streams would else make it everybody's first choice. No more than half of them are passed
    over at a time, so never the only one, for which health checks alone decide.
    """
    return OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=1,
        enforcing_consecutive_local_origin_failure=100,
        # What it answers is no reason.
        enforcing_consecutive_5xx=0,
        enforcing_success_rate=0,
        enforcing_local_origin_success_rate=0,
        interval=seconds(EJECTION_SWEEP_S),
        base_ejection_time=seconds(EJECTION_S),
        max_ejection_time=seconds(EJECTION_S),
        max_ejection_percent=50,
    )


def _token_filters(configuration: Configuration) -> list[HttpFilter]:
    """Show the server its token, on every stream alike: the log of breaks has no other place for it.

    Envoy reads it from its own environment, so that no rendered file holds it.
    """
    variable = configuration.server.token_env
    if variable is None:
        return []
    token = HeaderMutation(append=overwrite(headers.TOKEN, f"%ENVIRONMENT({variable})%"))
    return [_mutating(token), upstream_codec()]


def _mutating(mutation: HeaderMutation) -> HttpFilter:
    mutations = HeaderMutationFilter(mutations=Mutations(request_mutations=[mutation]))
    return HttpFilter(name="envoy.filters.http.header_mutation", typed_config=pack(mutations))


def _server_tls(configuration: Configuration, servers: tuple[Address | Pipe, ...]) -> TransportSocket:
    """TLS to the servers: they must have the one name that the file says, or each that of its address."""
    tls = configuration.envoy.ext_proc_tls
    hosts = {listen.host: None for listen in servers if isinstance(listen, Address)}
    names = list(hosts) if tls.name is None else [tls.name]
    validation = CertificateValidationContext(
        trusted_ca=DataSource(filename=tls.ca or SYSTEM_CA_FILE),
        match_typed_subject_alt_names=[_has_name(name) for name in names],
    )
    version = TlsParametersTlsProtocol.TLSv1_3
    common = CommonTlsContext(
        validation_context=validation,
        alpn_protocols=["h2"],
        # Envoy stops at 1.2 towards its upstreams unless told otherwise; gRPC speaks 1.3.
        tls_params=TlsParameters(tls_minimum_protocol_version=version, tls_maximum_protocol_version=version),
    )
    if tls.certificate is not None and tls.key is not None:
        own = TlsCertificate(
            certificate_chain=DataSource(filename=tls.certificate), private_key=DataSource(filename=tls.key)
        )
        common.tls_certificates = [own]
    if tls.sds is not None:
        watched = ConfigSource(path_config_source=PathConfigSource(path=tls.sds))
        common.tls_certificate_sds_secret_configs = [SdsSecretConfig(name=SDS_NAME, sds_config=watched)]
    sni = next((name for name in names if not (_is_ip(name) or "://" in name)), "")
    context = UpstreamTlsContext(common_tls_context=common, sni=sni)
    return TransportSocket(name=_TLS, typed_config=pack(context))


def _has_name(name: str) -> SubjectAltNameMatcher:
    kind = SubjectAltNameMatcherSanType.DNS
    if _is_ip(name):
        kind = SubjectAltNameMatcherSanType.IP_ADDRESS
    elif "://" in name:
        kind = SubjectAltNameMatcherSanType.URI
    return SubjectAltNameMatcher(san_type=kind, matcher=exactly(name))


def _keepalive(envoy: EnvoySettings) -> KeepaliveSettings | None:
    """Pings that a frozen server leaves unanswered, so that its streams end.

    Envoy's message timeout, which ends them otherwise, does not count while bodies are streamed.
    """
    if not envoy.streams_bodies:
        return None
    timeout_s = max(PING_TIMEOUT_S, envoy.message_timeout_s)
    return KeepaliveSettings(interval=seconds(PING_INTERVAL_S), timeout=seconds(timeout_s))


def _provider(
    upstream: Upstream, configuration: Configuration, name: str, options: HttpProtocolOptions, ca_file: str
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
        circuit_breakers=_generous(upstream.max_requests or MANY),
        per_connection_buffer_limit_bytes=configuration.envoy.buffer_limit_bytes,
        typed_extension_protocol_options={OPTIONS: pack(options)},
        transport_socket=tls(upstream.host, ca_file) if upstream.tls else None,
        # A provider's name stands for many addresses that come and go: one connection pool for them all.
        type=discovery(upstream.host, names=ClusterDiscoveryType.LOGICAL_DNS),
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        load_assignment=_endpoints(name, (Address(upstream.host, upstream.port),)),
    )


def discovery(
    *hosts: str, names: ClusterDiscoveryType = ClusterDiscoveryType.STRICT_DNS
) -> ClusterDiscoveryType:
    return ClusterDiscoveryType.STATIC if all(map(_is_ip, hosts)) else names


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _endpoints(cluster: str, addresses: tuple[Address | Pipe, ...]) -> ClusterLoadAssignment:
    endpoints = [LbEndpoint(endpoint=Endpoint(address=address(listen))) for listen in addresses]
    return ClusterLoadAssignment(
        cluster_name=cluster, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)]
    )


def _generous(max_requests: int = MANY) -> CircuitBreakers:
    return CircuitBreakers(
        thresholds=[
            CircuitBreakersThresholds(
                max_connections=MANY, max_pending_requests=MANY, max_requests=max_requests
            )
        ]
    )


def tls(host: str, ca_file: str) -> TransportSocket:
    """TLS that proves the host: its name, also asked for by SNI, or its address, which SNI cannot carry."""
    validation = CertificateValidationContext(trusted_ca=DataSource(filename=ca_file))
    context = UpstreamTlsContext(common_tls_context=CommonTlsContext(validation_context=validation))
    if _is_ip(host):
        validation.match_typed_subject_alt_names = [_has_name(host)]
    else:
        context.sni, context.auto_sni_san_validation = host, True
    return TransportSocket(name=_TLS, typed_config=pack(context))
