"""HTTPRoutes: one rule for each cluster that the server may name, one for undecided calls, one for the rest.

A rule matches `x-arch-cluster`, because an HTTPRoute cannot take a cluster's name from a header. Envoy
Gateway sorts all rules of a Gateway itself: by kind of path match, the path's length, then number of headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ext_proc.core import headers
from ext_proc.core.paths import ENDPOINT_OF_PATH
from ext_proc.core.rewrite import AUTH_HEADERS
from ext_proc.core.settings import Configuration, Upstream
from ext_proc.core.types import Chain, Target
from ext_proc.envoy_config.manifests import NAME, Manifest, Place, is_name, label, manifest

UNDECIDED = "arch-undecided"
"""What `x-arch-cluster` is until the server has spoken."""

UNDECIDED_ROUTE = f"{NAME}-undecided"
_DECIDED_ROUTE = f"{NAME}-decided"
_REST_ROUTE = f"{NAME}-everything-else"
_API = "gateway.networking.k8s.io/v1"
_EXTENSIONS = "gateway.envoyproxy.io"
_MAX_RULES = 16
"""Of one HTTPRoute. Source: the Gateway API."""


@dataclass(frozen=True, slots=True)
class Routes:
    """What was made.

    `rules`: of each rule for decided requests the name that Envoy Gateway gives its route in Envoy, and the
    chain that it stands for. `rules_of_cluster`: which (HTTPRoute, rule) lead to a cluster.
    """

    manifests: list[Manifest]
    rules: list[tuple[str, Chain | None]]
    rules_of_cluster: Mapping[str, list[tuple[str, str]]]


def backend_of(upstream: Upstream) -> str:
    return f"{NAME}-{label(upstream.host)}-{upstream.port}"


def routes(configuration: Configuration, place: Place) -> Routes:
    upstreams = {upstream.cluster: upstream for upstream in configuration.upstreams}
    of_cluster: dict[str, list[tuple[str, str]]] = {}
    ways = [
        *((cluster, target, None) for cluster, target in _one_per_cluster(configuration).items()),
        *((chain.cluster, chain.targets[0], chain) for chain in configuration.snapshot.chains.values()),
    ]
    found: list[Manifest] = []
    named: list[tuple[str, Chain | None]] = []
    for start in range(0, len(ways), _MAX_RULES):
        name = f"{_DECIDED_ROUTE}-{start // _MAX_RULES}"
        rules = []
        for index, (cluster, target, chain) in enumerate(ways[start : start + _MAX_RULES]):
            rule = f"to-{index}"
            rules.append({"name": rule, **_decided(configuration, cluster, upstreams[target.cluster], chain)})
            named.append((f"httproute/{place.namespace}/{name}/rule/{index}/match/0/*", chain))
            of_cluster.setdefault(target.cluster, []).append((name, rule))
        why = "Decided requests, by the cluster that the server named; their path and key are the provider's."
        if any(chain for _, _, chain in ways[start : start + _MAX_RULES]):
            why += (
                "\nA ranked list of models has a rule too. It goes to the first of them alone, unless the\n"
                "EnvoyPatchPolicy below is in force: Envoy Gateway's own fallback would send on the\n"
                "first one's model and key."
            )
        found.append(_route(why, name, place, rules))
    default = configuration.snapshot.default
    where = upstreams[default.cluster]
    for name in (UNDECIDED_ROUTE, _REST_ROUTE):
        of_cluster.setdefault(default.cluster, []).append((name, "default"))
    return Routes(
        [*found, *_undecided(configuration, where, place), _rest(configuration, where, place)],
        named,
        of_cluster,
    )


def _one_per_cluster(configuration: Configuration) -> dict[str, Target]:
    targets: dict[str, Target] = {}
    for target in configuration.snapshot.targets.values():
        targets.setdefault(target.cluster, target)
    return targets


def _decided(
    configuration: Configuration, cluster: str, upstream: Upstream, chain: Chain | None
) -> dict[str, Any]:
    shown = [{"name": name, "value": f"%REQ({name})%"} for name in headers.SHOWN_TO_CLIENT]
    if chain is not None:
        shown.append({"name": headers.ATTEMPTS, "value": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"})
    return {
        "matches": [_match({"type": "PathPrefix", "value": "/"}, {headers.CLUSTER: cluster})],
        "filters": [
            *_host(upstream),
            _without(configuration, headers.UNTIL_ROUTED),
            _answer(shown),
        ],
        **_to(configuration, upstream),
    }


def _undecided(configuration: Configuration, upstream: Upstream, place: Place) -> list[Manifest]:
    """LLM calls as clients send them. The server is asked on this route; what it says leads to another."""
    target = configuration.snapshot.default
    added, removed = _credential(configuration, target)
    request = _without(configuration, (headers.CLUSTER, *removed))
    if added:
        request["requestHeaderModifier"]["set"] = added
    reason = {"name": headers.REASON, "value": "server_unavailable"}
    filters = [
        *_host(upstream),
        request,
        _answer([reason]),
    ]
    found = []
    if target.path_prefix is not None:
        reference = {"group": _EXTENSIONS, "kind": "HTTPRouteFilter", "name": UNDECIDED_ROUTE}
        filters.append({"type": "ExtensionRef", "extensionRef": reference})
        substitution = target.path_prefix.replace("\\", r"\\") + r"/\1"
        match = {"pattern": f"^{ENDPOINT_OF_PATH}$", "substitution": substitution}
        spec = {"urlRewrite": {"path": {"type": "ReplaceRegexMatch", "replaceRegexMatch": match}}}
        why = "The default provider's path, for calls that no server decided."
        found.append(
            manifest(
                why, f"{_EXTENSIONS}/v1alpha1", "HTTPRouteFilter", UNDECIDED_ROUTE, place.namespace, spec
            )
        )
    path = {"type": "RegularExpression", "value": headers.LLM_PATH}
    rule = {
        "name": "default",
        "matches": [{**_match(path, {headers.CLUSTER: UNDECIDED}), "method": "POST"}],
        "filters": filters,
        **_to(configuration, upstream),
    }
    why = "LLM calls until the server has decided; when it does not, they go to the default provider."
    return [*found, _route(why, UNDECIDED_ROUTE, place, [rule])]


def _rest(configuration: Configuration, upstream: Upstream, place: Place) -> Manifest:
    rule = {
        "name": "default",
        "matches": [_match({"type": "PathPrefix", "value": "/"}, {})],
        "filters": [*_host(upstream), _without(configuration, (headers.CLUSTER,)), _answer([])],
        **_to(configuration, upstream),
    }
    return _route("No LLM call: the default provider, without a key.", _REST_ROUTE, place, [rule])


def _credential(configuration: Configuration, target: Target) -> tuple[list[dict[str, str]], list[str]]:
    """What is set and what removed: the default provider's key, from Envoy's own environment."""
    if target.passthrough_auth:
        return [], []
    variable = configuration.envoy.failure_credential_env
    if target.credential is None or variable is None:
        return [], list(AUTH_HEADERS)
    name = target.credential.header
    scheme = "Bearer " if name == "authorization" else ""
    kept = [{"name": name, "value": f"{scheme}%ENVIRONMENT({variable})%"}]
    return kept, [header for header in AUTH_HEADERS if header != name]


def _match(path: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, Any]:
    match: dict[str, Any] = {"path": dict(path)}
    if wanted:
        match["headers"] = [{"type": "Exact", "name": name, "value": value} for name, value in wanted.items()]
    return match


def _host(upstream: Upstream) -> list[dict[str, Any]]:
    """The provider's host, which the server may not write here. The Gateway API lets it have no port."""
    if not is_name(upstream.host):
        return []
    return [{"type": "URLRewrite", "urlRewrite": {"hostname": upstream.host}}]


def _without(configuration: Configuration, names: tuple[str, ...]) -> dict[str, Any]:
    cookie = [] if configuration.envoy.pass_cookies else [headers.COOKIES[0]]
    removed = [*names, headers.TRY_ARM, headers.TRY_KEY, *headers.OF_THE_CLIENTS_HOP, *cookie]
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": removed}}


def _answer(shown: list[dict[str, str]]) -> dict[str, Any]:
    """What clients are told, and nothing that a provider says in our name."""
    modifier: dict[str, Any] = {"remove": [*headers.DECISION, headers.ATTEMPTS]}
    if shown:
        modifier["set"] = shown
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": modifier}


def _to(configuration: Configuration, upstream: Upstream) -> dict[str, Any]:
    reference = {"group": _EXTENSIONS, "kind": "Backend", "name": backend_of(upstream)}
    return {
        "backendRefs": [reference],
        "timeouts": {"request": f"{configuration.envoy.request_timeout_s:.0f}s"},
    }


def _route(why: str, name: str, place: Place, rules: list[dict[str, Any]]) -> Manifest:
    spec = {"parentRefs": [{"name": NAME}], "rules": rules}
    return manifest(why, _API, "HTTPRoute", name, place.namespace, spec)
