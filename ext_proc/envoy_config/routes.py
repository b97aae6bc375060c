"""Three routes: decided by the server, an LLM call that no server decided, and everything else."""

from __future__ import annotations

from envoy_data_plane.envoy.config.core.v3 import HeaderValueOption
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    Route,
    RouteAction,
    RouteActionRequestMirrorPolicy,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatchAndSubstitute

from ext_proc.core import headers
from ext_proc.core.rewrite import AUTH_HEADERS
from ext_proc.core.settings import Configuration
from ext_proc.core.types import Target
from ext_proc.envoy_config.typed import exactly, overwrite, regex, seconds

SERVER_UNAVAILABLE = "server_unavailable"
"""`x-arch-reason` of an LLM call that reached no ext_proc server, or none in time."""

_ENDPOINT_OF_LLM_PATH = (
    r"^(?:/[^/?]+)*?/v1/(chat/completions|responses|messages|completions|embeddings)(\?.*)?$"
)


def route_configuration(configuration: Configuration) -> RouteConfiguration:
    """The routes, in the order in which Envoy tries them."""
    return RouteConfiguration(
        name="arch_routes",
        virtual_hosts=[VirtualHost(name="llm", domains=["*"], routes=routes(configuration))],
    )


def routes(configuration: Configuration) -> list[Route]:
    """The routes alone, for a virtual host that is already there."""
    return [_decided(configuration), _undecided(configuration), _everything_else(configuration)]


def _decided(configuration: Configuration) -> Route:
    """The server has spoken: `x-arch-model` is there, and clients cannot send it.

    The path is already the provider's, so this route must not look at it.
    """
    return Route(
        name="decided",
        match=RouteMatch(prefix="/", headers=[HeaderMatcher(name=headers.MODEL, present_match=True)]),
        route=RouteAction(
            cluster_header=headers.CLUSTER,
            request_mirror_policies=[RouteActionRequestMirrorPolicy(cluster_header=headers.SHADOW)],
            timeout=seconds(configuration.envoy.request_timeout_s),
            idle_timeout=seconds(configuration.envoy.request_timeout_s),
        ),
        response_headers_to_add=[overwrite(name, f"%REQ({name})%") for name in headers.SHOWN_TO_CLIENT],
    )


def _undecided(configuration: Configuration) -> Route:
    """No server, or none in time: the default provider gets the call with the client's own body.

    What the server would have done for that provider, short of the body, Envoy does alone here.
    """
    target = configuration.snapshot.default
    action = RouteAction(
        cluster=target.cluster,
        timeout=seconds(configuration.envoy.request_timeout_s),
        idle_timeout=seconds(configuration.envoy.request_timeout_s),
    )
    if target.authority is not None:
        action.host_rewrite_literal = target.authority
    if target.path_prefix is not None:
        action.regex_rewrite = RegexMatchAndSubstitute(
            pattern=regex(_ENDPOINT_OF_LLM_PATH), substitution=rf"{_escaped(target.path_prefix)}/\1\2"
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
    """No LLM call: the default cluster, untouched. It gets no key, or anyone could use it on any path."""
    return Route(
        name="everything_else",
        match=RouteMatch(prefix="/"),
        route=RouteAction(
            cluster=configuration.snapshot.default.cluster,
            timeout=seconds(configuration.envoy.request_timeout_s),
        ),
    )


def _credential(target: Target, variable: str | None) -> list[HeaderValueOption]:
    """The default provider's key, from a variable in Envoy's own environment: never in its configuration."""
    if target.credential is None or variable is None:
        return []
    scheme = "Bearer " if target.credential.header == "authorization" else ""
    return [overwrite(target.credential.header, f"{scheme}%ENVIRONMENT({variable})%")]


def _escaped(substitution: str) -> str:
    return substitution.replace("\\", r"\\")
