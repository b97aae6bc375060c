"""An Envoy external-processing server that routes LLM traffic by policy."""

__version__ = "0.1.0"
