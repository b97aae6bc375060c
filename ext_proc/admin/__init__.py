"""The operator's HTTP port: health and metrics."""
