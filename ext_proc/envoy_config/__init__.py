"""A configuration to Envoy's side of it, in envoy-data-plane's typed messages; YAML at the edge."""

from ext_proc.envoy_config.render import render_bootstrap, render_filter

__all__ = ["render_bootstrap", "render_filter"]
