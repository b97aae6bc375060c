"""Typed messages to YAML text: a whole bootstrap, or the pieces for an Envoy that is already there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import betterproto2
import yaml
from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapStaticResources,
    LayeredRuntime,
    RuntimeLayer,
    RuntimeLayerAdminLayer,
)
from envoy_data_plane.envoy.config.core.v3 import Node

from ext_proc.core.settings import Address, Configuration, Pipe
from ext_proc.envoy_config import clusters, filters, gateway, istio, routes
from ext_proc.envoy_config.break_log import break_log
from ext_proc.envoy_config.chains import chains
from ext_proc.envoy_config.clusters import SYSTEM_CA_FILE
from ext_proc.envoy_config.listener import buffer_limit, listener
from ext_proc.envoy_config.manifests import Place, as_yaml
from ext_proc.envoy_config.typed import address, as_dict

_HEADER = "# Written by `arch-ext-proc render`: change arch_config.yaml, not this.\n"


def render_bootstrap(
    configuration: Configuration, servers: tuple[Address | Pipe, ...], *, ca_file: str = SYSTEM_CA_FILE
) -> str:
    """Everything Envoy needs, as YAML. `servers` are the ext_proc processes, one endpoint each.

    `ca_file` is where Envoy's machine, not this one, keeps the authorities that TLS trusts.
    """
    admin = configuration.envoy.admin
    watches = configuration.envoy.ext_proc_tls.sds is not None
    bootstrap = Bootstrap(
        # Envoy wants a name before it watches a secret's file, whoever that could interest.
        node=Node(id="arch", cluster="arch") if watches else None,
        admin=Admin(address=address(admin)) if admin else None,
        layered_runtime=_runtime(configuration),
        static_resources=BootstrapStaticResources(
            listeners=[listener(configuration)],
            clusters=[
                *clusters.providers(configuration, ca_file),
                *clusters.shadows(configuration, ca_file),
                *chains(configuration, ca_file),
                clusters.server(configuration, servers),
            ],
        ),
    )
    return _HEADER + _missing(configuration) + _yaml(as_dict(bootstrap))


def _runtime(configuration: Configuration) -> LayeredRuntime | None:
    """A layer that Envoy's admin interface can write: where the weights of the splits are changed."""
    if not any(route.envoy_splits for route in configuration.snapshot.routes.values()):
        return None
    return LayeredRuntime(layers=[RuntimeLayer(name="admin", admin_layer=RuntimeLayerAdminLayer())])


def render_filter(
    configuration: Configuration, servers: tuple[Address | Pipe, ...], *, ca_file: str = SYSTEM_CA_FILE
) -> str:
    """The pieces for an existing Envoy, each under a comment that says where it goes."""
    ours = [
        clusters.server(configuration, servers),
        *clusters.shadows(configuration, ca_file),
        *chains(configuration, ca_file),
    ]
    pieces: list[tuple[str, Any]] = [
        (
            "In the HTTP connection manager: clients' own x-arch-* headers go, the default cluster is set.",
            {"early_header_mutation_extensions": [as_dict(filters.own_headers(configuration))]},
        ),
        (
            "In the HTTP connection manager's http_filters, in this order, before envoy.filters.http.router.",
            {
                "http_filters": [
                    as_dict(filters.ext_proc(configuration)),
                    as_dict(filters.observe_ext_proc(configuration)),
                ]
            },
        ),
        (
            "In the HTTP connection manager: the answers that providers broke off are told to the server.",
            {"access_log": [as_dict(break_log(configuration))]},
        ),
        (
            "In the virtual host, in this order, before any route that matches the same paths; the last\n"
            "# only if what is no LLM call shall go to the default provider. Envoy looks for the virtual\n"
            "# host again when the request has its provider's host, so it must have the domain '*'.",
            {"routes": _dicts(routes.routes(configuration))},
        ),
        (
            "In the listener: larger bodies get 413 from Envoy."
            if not configuration.envoy.streams_bodies
            else "In the listener: bodies come to the server in pieces of at most this size.",
            {"per_connection_buffer_limit_bytes": buffer_limit(configuration)},
        ),
        (
            "In static_resources (or your xDS): the ext_proc servers"
            " and, if policies have shadows or fallbacks, where the copies go and what is failed over.",
            {"clusters": _dicts(ours)},
        ),
    ]
    return _HEADER + "".join(f"\n# {where}\n{_yaml(piece)}" for where, piece in pieces)


def render_istio(
    configuration: Configuration,
    servers: tuple[Address | Pipe, ...],
    place: Place,
    *,
    ca_file: str = SYSTEM_CA_FILE,
) -> str:
    """Kubernetes manifests for a gateway of Istio. Errors: CannotRender."""
    found = istio.manifests(configuration, servers, place, ca_file)
    return as_yaml(_HEADER + _missing(configuration), found)


def render_envoy_gateway(
    configuration: Configuration,
    servers: tuple[Address | Pipe, ...],
    place: Place,
    *,
    ca_file: str = SYSTEM_CA_FILE,
) -> str:
    """Kubernetes manifests for Envoy Gateway. Errors: CannotRender."""
    return as_yaml(_HEADER, gateway.manifests(configuration, servers, place, ca_file))


def _missing(configuration: Configuration) -> str:
    """A comment that names the clusters that no `base_url` describes, if there are any."""
    known = {upstream.cluster for upstream in configuration.upstreams}
    named = {target.cluster for target in configuration.snapshot.targets.values()}
    if not (missing := sorted(named - known)):
        return ""
    return f"# Not in here, because no base_url says where they are: {', '.join(missing)}.\n"


def _dicts(messages: Sequence[betterproto2.Message]) -> list[dict[str, Any]]:
    return [as_dict(message) for message in messages]


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
