"""A configuration to Envoy's side of it, in envoy-data-plane's typed messages; YAML at the edge."""

from ext_proc.envoy_config.manifests import CannotRender, Place
from ext_proc.envoy_config.render import (
    render_bootstrap,
    render_envoy_gateway,
    render_filter,
    render_istio,
)

__all__ = [
    "CannotRender",
    "Place",
    "render_bootstrap",
    "render_envoy_gateway",
    "render_filter",
    "render_istio",
]
