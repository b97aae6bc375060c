"""The cluster of a chain: its targets at priorities 0, 1, 2 …, every attempt made fit for its own."""

from __future__ import annotations

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterTransportSocketMatch,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import (
    Http1ProtocolOptions,
    Metadata,
)
from envoy_data_plane.envoy.config.core.v3 import HttpProtocolOptions as CommonHttpOptions
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.route.v3 import (
    RetryPolicy,
    RetryPolicyRetryBackOff,
    RetryPolicyRetryPriority,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import (
    HeaderMutation as HeaderMutationFilter,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities.v3 import PreviousPrioritiesConfig
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsAutoHttpConfig,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.google.protobuf import Struct
from envoy_data_plane.xds.type.matcher.v3 import (
    MatcherMatcherListPredicate,
    MatcherMatcherListPredicatePredicateList,
    StringMatcher,
)

from ext_proc.core import headers
from ext_proc.core.settings import Address, Configuration, Upstream
from ext_proc.core.types import Chain, Retry, Target
from ext_proc.envoy_config.clusters import (
    CONNECT_TIMEOUT_S,
    IDLE_TIMEOUT_S,
    MANY,
    OPTIONS,
    discovery,
    tls,
)
from ext_proc.envoy_config.filters import attempt_ext_proc, upstream_codec
from ext_proc.envoy_config.skipping import header_is, skipped_where
from ext_proc.envoy_config.typed import address, overwrite, pack, seconds

METADATA = "arch"
"""The namespace of an endpoint's metadata that names its target."""

_TARGET = "target"
_SOCKET_MATCH = "envoy.transport_socket_match"
_BACK_OFF_S = 0.001
"""The next attempt goes to another provider, which needs no sparing: hardly a pause."""

_EJECTION_SWEEP_S = 1.0


def chains(configuration: Configuration, ca_file: str) -> list[Cluster]:
    """One cluster per chain of the configuration."""
    return [chain_cluster(configuration, chain, ca_file) for chain in configuration.snapshot.chains.values()]


def chain_cluster(configuration: Configuration, chain: Chain, ca_file: str) -> Cluster:
    """A chain's cluster. Its retry policy is here, not at a route, because it depends on the chain.

    One provider may stand in it twice, with two models: Envoy keeps hosts of different priorities apart.
    """
    known = {upstream.cluster: upstream for upstream in configuration.upstreams}
    upstreams = [known[target.cluster] for target in chain.targets]
    limits = [upstream.max_requests for upstream in upstreams]
    secure = {upstream.cluster: upstream for upstream in upstreams if upstream.tls}.values()
    sockets = [
        ClusterTransportSocketMatch(
            name=upstream.cluster,
            match=Struct.from_dict({_TARGET: upstream.cluster}),
            transport_socket=tls(upstream.host, ca_file),
        )
        for upstream in secure
    ]
    all_secure = len(secure) == len({upstream.cluster for upstream in upstreams})
    options = HttpProtocolOptions(
        common_http_protocol_options=CommonHttpOptions(idle_timeout=seconds(IDLE_TIMEOUT_S)),
        retry_policy=_retry_policy(chain),
        http_filters=[_name_attempt(), _unless_fit(configuration, chain), upstream_codec()],
    )
    if all_secure:
        options.auto_config = HttpProtocolOptionsAutoHttpConfig()
    else:
        # HTTP/2 is agreed on by TLS (ALPN), and Envoy wants all hosts of a cluster to be able to.
        options.explicit_http_config = HttpProtocolOptionsExplicitHttpConfig(
            http_protocol_options=Http1ProtocolOptions()
        )
    return Cluster(
        name=chain.cluster,
        connect_timeout=seconds(CONNECT_TIMEOUT_S),
        circuit_breakers=_breakers(sum(limit or MANY for limit in limits)),
        outlier_detection=_outlier_detection(chain.retry),
        per_connection_buffer_limit_bytes=configuration.envoy.buffer_limit_bytes,
        typed_extension_protocol_options={OPTIONS: pack(options)},
        transport_socket=sockets[0].transport_socket if all_secure else None,
        transport_socket_matches=sockets,
        type=discovery(*(upstream.host for upstream in upstreams), names=ClusterDiscoveryType.STRICT_DNS),
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        load_assignment=ClusterLoadAssignment(
            cluster_name=chain.cluster,
            endpoints=[
                LocalityLbEndpoints(priority=priority, lb_endpoints=[_endpoint(target, upstream)])
                for priority, (target, upstream) in enumerate(zip(chain.targets, upstreams, strict=True))
            ],
        ),
    )


def _endpoint(target: Target, upstream: Upstream) -> LbEndpoint:
    metadata = {METADATA: Struct.from_dict({_TARGET: target.name})}
    if upstream.tls:
        metadata[_SOCKET_MATCH] = Struct.from_dict({_TARGET: upstream.cluster})
    return LbEndpoint(
        endpoint=Endpoint(address=address(Address(upstream.host, upstream.port))),
        metadata=Metadata(filter_metadata=metadata),
    )


def _retry_policy(chain: Chain) -> RetryPolicy:
    """Each target once, in order. (The time that one attempt may take is a route's to say.)"""
    conditions = ["connect-failure", "refused-stream", "reset", "retriable-status-codes"]
    return RetryPolicy(
        retry_on=",".join([*conditions, "5xx"] if chain.retry.server_errors else conditions),
        retriable_status_codes=list(chain.retry.statuses),
        num_retries=len(chain.targets) - 1,
        retry_back_off=RetryPolicyRetryBackOff(base_interval=seconds(_BACK_OFF_S)),
        retry_priority=RetryPolicyRetryPriority(
            name="envoy.retry_priorities.previous_priorities",
            typed_config=pack(PreviousPrioritiesConfig(update_frequency=1)),
        ),
    )


def _name_attempt() -> HttpFilter:
    """Say in a header which target this attempt goes to. No client's header of that name survives it."""
    target = overwrite(headers.ATTEMPT, f"%UPSTREAM_METADATA({METADATA}:{_TARGET})%")
    mutations = Mutations(request_mutations=[HeaderMutation(append=target)])
    return HttpFilter(
        name="envoy.filters.http.header_mutation",
        typed_config=pack(HeaderMutationFilter(mutations=mutations)),
    )


def _unless_fit(configuration: Configuration, chain: Chain) -> HttpFilter:
    """Ask the server about an attempt, unless it goes to the target that the request is written for.

    So the usual request, which the first target answers, costs no second stream, and needs no server.
    """
    asks = attempt_ext_proc(configuration, chain.targets)
    both = MatcherMatcherListPredicatePredicateList(
        predicate=[
            header_is(name, StringMatcher(exact=chain.targets[0].name))
            for name in (headers.ATTEMPT, headers.WRITTEN_FOR)
        ]
    )
    return skipped_where(MatcherMatcherListPredicate(and_matcher=both), asks)


def _breakers(max_requests: int) -> CircuitBreakers:
    """Envoy's own limit of three retries at a time would end failovers when they are needed most."""
    return CircuitBreakers(
        thresholds=[
            CircuitBreakersThresholds(
                max_connections=MANY,
                max_pending_requests=MANY,
                max_requests=min(max_requests, MANY),
                max_retries=MANY,
            )
        ]
    )


def _outlier_detection(retry: Retry) -> OutlierDetection:
    """A target that keeps failing is passed over for a while. When all are, Envoy asks them all the same."""
    return OutlierDetection(
        consecutive_5xx=retry.ejection_failures,
        interval=seconds(_EJECTION_SWEEP_S),
        base_ejection_time=seconds(retry.ejection_s),
        max_ejection_time=seconds(retry.ejection_s),
        max_ejection_percent=100,
        enforcing_consecutive_5xx=100,
        enforcing_success_rate=0,
    )
