"""Measurements: what this server adds to Envoy, in one run, against Envoy alone."""
