"""What no resource of Envoy Gateway says: one EnvoyPatchPolicy, without which decisions work all the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envoy_data_plane.envoy.config.route.v3 import RetryPolicy
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.xds.type.matcher.v3 import (
    MatcherMatcherListPredicate,
    RegexMatcher,
    RegexMatcherGoogleRe2,
    StringMatcher,
)

from ext_proc.core import headers
from ext_proc.core.settings import Configuration
from ext_proc.envoy_config import clusters, filters
from ext_proc.envoy_config import routes as envoy_routes
from ext_proc.envoy_config.break_log import break_log
from ext_proc.envoy_config.chains import chains
from ext_proc.envoy_config.gateway_routes import Routes
from ext_proc.envoy_config.manifests import NAME, Manifest, Place, manifest
from ext_proc.envoy_config.skipping import header_is, skipped_where
from ext_proc.envoy_config.typed import as_dict, seconds

_MANAGER = "/default_filter_chain/filters/0/typed_config"
_TYPES = "type.googleapis.com/envoy.config"


def patch_policy(
    configuration: Configuration, place: Place, listener: str, routes: Routes, ca_file: str
) -> Manifest:
    resource = f"{place.namespace}/{NAME}/{listener}"
    ours = f"envoy.filters.http.ext_proc/{configuration.envoy.ext_proc_cluster}"
    asks = as_dict(filters.ext_proc(configuration))["typed_config"]
    known = f"{_filter_named(ours)}.typed_config"
    patches = [
        *(
            _patch("listener.v3.Listener", resource, _add(asks[field], f"/{field}", known))
            for field in (
                "forward_rules",
                "mutation_rules",
                "disable_immediate_response",
                "allowed_override_modes",
            )
        ),
        _patch(
            "listener.v3.Listener",
            resource,
            _add(asks["grpc_service"]["initial_metadata"], "/grpc_service/initial_metadata", known),
        ),
        *_observation(configuration, resource),
        *_copies_and_chains(configuration, resource, routes),
        *(
            _patch("cluster.v3.Cluster", cluster.name, _add(as_dict(cluster), ""))
            for cluster in (*clusters.shadows(configuration, ca_file), *chains(configuration, ca_file))
        ),
    ]
    why = (
        "Needs enableEnvoyPatchPolicy in Envoy Gateway's own configuration, and the names that it gives by\n"
        "default (no XDSNameSchemeV2). With it the server gets the headers that it reads, may change those\n"
        "that it writes, and no others; and what no resource can say works: observed answers, shadows,\n"
        "ranked models after a failure. Without it rollouts see no answers, no copy is made, and the first\n"
        "model's failure is the client's. Either way split: envoy goes by the weights of the file."
    )
    spec = {
        "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": NAME},
        "type": "JSONPatch",
        "jsonPatches": patches,
    }
    return manifest(why, "gateway.envoyproxy.io/v1alpha1", "EnvoyPatchPolicy", NAME, place.namespace, spec)


def _observation(configuration: Configuration, resource: str) -> list[dict[str, Any]]:
    """The filter goes before the router, for requests that are observed: no route says for which not."""
    observer = as_dict(_unless_observed(filters.observe_ext_proc(configuration)))
    return [
        _patch(
            "listener.v3.Listener", resource, _add(observer, None, _filter_named("envoy.filters.http.router"))
        ),
        _patch(
            "listener.v3.Listener",
            resource,
            _add(as_dict(break_log(configuration)), f"{_MANAGER}/access_log/-"),
        ),
    ]


def _copies_and_chains(configuration: Configuration, resource: str, routes: Routes) -> list[dict[str, Any]]:
    copies = [as_dict(policy) for policy in envoy_routes.copies(configuration)]
    found = []
    for name, chain in routes.rules:
        action = f"$.virtual_hosts[*].routes[?(@.name=='{name}')].route"
        changes: dict[str, Any] = {}
        if clusters.copied_to(configuration):
            changes["request_mirror_policies"] = copies
        if chain is not None:
            changes["cluster"] = chain.cluster
        if chain is not None and len(chain.targets) > 1:
            retry = RetryPolicy(per_try_timeout=seconds(chain.retry.per_try_timeout_s))
            changes["retry_policy"] = as_dict(retry)
        found += [
            _patch("route.v3.RouteConfiguration", resource, _add(value, f"/{field}", action))
            for field, value in changes.items()
        ]
    return found


def _unless_observed(observer: HttpFilter) -> HttpFilter:
    present = StringMatcher(safe_regex=RegexMatcher(google_re2=RegexMatcherGoogleRe2(), regex=".+"))
    is_observed = header_is(headers.OBSERVE, present)
    return skipped_where(MatcherMatcherListPredicate(not_matcher=is_observed), observer)


def _filter_named(name: str) -> str:
    return f"$.default_filter_chain.filters[0].typed_config.http_filters[?(@.name=='{name}')]"


def _add(value: Any, path: str | None, json_path: str | None = None) -> dict[str, Any]:
    """JSON Patch's `add`, which replaces what is there. With `json_path` alone: before the element found."""
    operation: dict[str, Any] = {"op": "add"}
    if json_path is not None:
        operation["jsonPath"] = json_path
    if path is not None:
        operation["path"] = path
    return {**operation, "value": value}


def _patch(kind: str, name: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": f"{_TYPES}.{kind}", "name": name, "operation": dict(operation)}
