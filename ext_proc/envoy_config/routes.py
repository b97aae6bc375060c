"""The routes: decided by the server (for a chain or not, observed or not), undecided LLM calls, the rest."""

from __future__ import annotations

from dataclasses import replace

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import HeaderValueOption
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    RetryPolicy,
    Route,
    RouteAction,
    RouteActionRequestMirrorPolicy,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
    WeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ExtProcPerRoute
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatchAndSubstitute

from ext_proc.core import headers
from ext_proc.core.failover import chain_of_arm
from ext_proc.core.paths import ENDPOINT_OF_PATH
from ext_proc.core.rewrite import AUTH_HEADERS, try_timeout_ms
from ext_proc.core.settings import Configuration
from ext_proc.core.split import laid_out
from ext_proc.core.types import Route as PolicyRoute
from ext_proc.core.types import Target
from ext_proc.envoy_config.filters import EXT_PROC, OBSERVE
from ext_proc.envoy_config.typed import exactly, overwrite, pack, regex, seconds

SERVER_UNAVAILABLE = "server_unavailable"
"""`x-arch-reason` of an LLM call that reached no ext_proc server, or none in time."""

RUNTIME_PREFIX = "arch.split"
"""Envoy's runtime key for an arm's weight: this, a dot, and the arm's cluster."""

_ATTEMPTS = overwrite(headers.ATTEMPTS, "%UPSTREAM_REQUEST_ATTEMPT_COUNT%")
_ENDPOINT_OF_LLM_PATH = f"^{ENDPOINT_OF_PATH}$"
"""Envoy matches it against the path less its query, and puts the query back."""


def route_configuration(configuration: Configuration) -> RouteConfiguration:
    """The routes, in the order in which Envoy tries them.

    The default cluster may be one that only the mesh knows: without `validate_clusters: false` Envoy
    would refuse the whole configuration for it.
    """
    return RouteConfiguration(
        name="arch_routes",
        validate_clusters=False,
        virtual_hosts=[VirtualHost(name="llm", domains=["*"], routes=routes(configuration))],
    )


def routes(configuration: Configuration) -> list[Route]:
    """The routes alone, for a virtual host that is already there."""
    decided = [*_splits(configuration), *_failovers(configuration), _decided(configuration)]
    found = [
        *map(_observed, decided),
        *map(_unobserved, decided),
        _unobserved(_undecided(configuration)),
        _unobserved(_everything_else(configuration)),
    ]
    cookie, set_cookie = headers.COOKIES
    passes = configuration.envoy.pass_cookies
    for route in found:
        # A tester's key is for this server alone, and no provider need learn our clusters.
        route.request_headers_to_remove = [
            *route.request_headers_to_remove,
            *headers.UNTIL_ROUTED,
            headers.TRY_ARM,
            headers.TRY_KEY,
            *headers.OF_THE_CLIENTS_HOP,
            *([] if passes else [cookie]),
        ]
        # Envoy removes before it adds: what is left of ours is what it says itself.
        route.response_headers_to_remove = [
            *headers.DECISION,
            headers.ATTEMPTS,
            *headers.OF_THE_PROVIDERS_HOP,
            *([] if passes else [set_cookie]),
        ]
        if configuration.envoy.streams_bodies:
            # What may be sent again or copied; the listener's own limit is that of a piece.
            route.request_body_buffer_limit = configuration.envoy.buffer_limit_bytes
    return found


def _splits(configuration: Configuration) -> list[Route]:
    """Decided as well, but for the arm: one route for each policy that Envoy splits, by the bucket's number.

    The arms lie in the order of `core.split`, so the same weights give a session the same arm.
    """
    return [
        _split(configuration, route) for route in configuration.snapshot.routes.values() if route.envoy_splits
    ]


def _split(configuration: Configuration, split: PolicyRoute) -> Route:
    name = split.policy.name
    chains = {arm.name: chain_of_arm(split, arm) for arm in split.arms}
    weighted = WeightedCluster(
        clusters=[
            WeightedClusterClusterWeight(
                name=chains[arm.name].cluster,
                weight=arm.weight_per_10k,
                request_headers_to_add=[overwrite(headers.ARM, arm.name)],
            )
            for arm in laid_out(split.arms)
        ],
        header_name=headers.BUCKET,
        runtime_key_prefix=RUNTIME_PREFIX,
    )
    route = _decided(configuration)
    route.name = f"split-{name}"
    if route.match is not None:
        route.match.headers.append(HeaderMatcher(name=headers.SPLIT, string_match=exactly(name)))
    if route.route is not None:
        route.route.cluster_header = None
        route.route.weighted_clusters = weighted
        if any(len(chain.targets) > 1 for chain in chains.values()):
            route.route.retry_policy = RetryPolicy(per_try_timeout=seconds(split.retry.per_try_timeout_s))
    route.response_headers_to_add.append(_ATTEMPTS)
    return route


def _failovers(configuration: Configuration) -> list[Route]:
    """Decided as well, for a chain: one route for each time that an attempt may take.

    When to go on is said at a chain's cluster, but Envoy takes this time from the route alone.
    """
    routes = []
    chains = [chain for chain in configuration.snapshot.chains.values() if len(chain.targets) > 1]
    for timeout in sorted({try_timeout_ms(chain.retry) for chain in chains}):
        route = _decided(configuration)
        route.name = f"failover-{timeout}ms"
        if route.match is not None:
            says_so = HeaderMatcher(name=headers.FAILOVER, string_match=exactly(timeout))
            route.match.headers.append(says_so)
        if route.route is not None:
            route.route.retry_policy = RetryPolicy(per_try_timeout=seconds(int(timeout) / 1000))
        route.response_headers_to_add.append(_ATTEMPTS)
        routes.append(route)
    return routes


def _observed(route: Route) -> Route:
    """The same route for requests whose answers the server wants to see."""
    if route.match is None:
        return route
    says_so = HeaderMatcher(name=headers.OBSERVE, present_match=True)
    match = replace(route.match, headers=[*route.match.headers, says_so])
    return replace(route, name=f"{route.name}-observed", match=match)


def _unobserved(route: Route) -> Route:
    """The same route without a second stream for the answer."""
    disabled = {OBSERVE: pack(ExtProcPerRoute(disabled=True))}
    return replace(route, typed_per_filter_config={**route.typed_per_filter_config, **disabled})


def _decided(configuration: Configuration) -> Route:
    """The server has spoken: `x-arch-model` is there, and clients cannot send it.

    The path is already the provider's, so this route must not look at it.
    """
    return Route(
        name="decided",
        match=RouteMatch(prefix="/", headers=[HeaderMatcher(name=headers.MODEL, present_match=True)]),
        route=RouteAction(
            cluster_header=headers.CLUSTER,
            request_mirror_policies=copies(configuration),
            timeout=seconds(configuration.envoy.request_timeout_s),
            idle_timeout=seconds(configuration.envoy.request_timeout_s),
        ),
        response_headers_to_add=[overwrite(name, f"%REQ({name})%") for name in headers.SHOWN_TO_CLIENT],
    )


def copies(configuration: Configuration) -> list[RouteActionRequestMirrorPolicy]:
    """The copy goes without any key, so that no provider sees another's whatever its cluster does."""
    credentials = {target.credential for target in configuration.snapshot.targets.values()}
    own = sorted({credential.header for credential in credentials if credential} - set(AUTH_HEADERS))
    removed = (*AUTH_HEADERS, *own, *headers.COPIES)
    mutations = [HeaderMutation(remove=name) for name in removed]
    return [
        RouteActionRequestMirrorPolicy(cluster_header=header, request_headers_mutations=mutations)
        for header in headers.COPIES
    ]


def _undecided(configuration: Configuration) -> Route:
    """No server, or none in time: the default provider gets the call with the client's own body.

    What the server would have done for that provider, short of the body, Envoy does alone here.
    """
    target = configuration.snapshot.default
    action = _to_default(configuration)
    if target.path_prefix is not None:
        action.regex_rewrite = RegexMatchAndSubstitute(
            pattern=regex(_ENDPOINT_OF_LLM_PATH), substitution=rf"{_escaped(target.path_prefix)}/\1"
        )
    added = _credential(target, configuration.envoy.failure_credential_env)
    kept = {option.header.key for option in added if option.header}
    return Route(
        name="undecided",
        match=RouteMatch(
            safe_regex=regex(headers.LLM_PATH),
            headers=[HeaderMatcher(name=":method", string_match=exactly("POST"))],
        ),
        route=action,
        request_headers_to_add=added,
        request_headers_to_remove=[]
        if target.passthrough_auth
        else [name for name in AUTH_HEADERS if name not in kept],
        response_headers_to_add=[overwrite(headers.REASON, SERVER_UNAVAILABLE)],
    )


def _everything_else(configuration: Configuration) -> Route:
    """No LLM call: the default cluster, untouched but for the host, which no provider answers without.

    It gets no key, or anyone could use it on any path.

    The server is not asked: it would only say so, and while Envoy waits for that it buffers the body
    and refuses one above the limit.
    """
    return Route(
        name="everything_else",
        match=RouteMatch(prefix="/"),
        route=_to_default(configuration),
        typed_per_filter_config={EXT_PROC: pack(ExtProcPerRoute(disabled=True))},
    )


def _to_default(configuration: Configuration) -> RouteAction:
    """A route's timeout is 15 s, and its idle timeout 5 min, unless it says otherwise: models take longer."""
    default, timeout_s = configuration.snapshot.default, configuration.envoy.request_timeout_s
    action = RouteAction(cluster=default.cluster, timeout=seconds(timeout_s), idle_timeout=seconds(timeout_s))
    if default.authority is not None:
        action.host_rewrite_literal = default.authority
    return action


def _credential(target: Target, variable: str | None) -> list[HeaderValueOption]:
    """The default provider's key, from a variable in Envoy's own environment: never in its configuration."""
    if target.credential is None or variable is None:
        return []
    scheme = "Bearer " if target.credential.header == "authorization" else ""
    return [overwrite(target.credential.header, f"{scheme}%ENVIRONMENT({variable})%")]


def _escaped(substitution: str) -> str:
    return substitution.replace("\\", r"\\")
