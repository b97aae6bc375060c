"""Keys of published archgw and Plano files that this server has no use for, and what to do about each."""

from __future__ import annotations

from collections.abc import Mapping

from ext_proc.config.envoy_schema import ArchListener, ArchListeners
from ext_proc.config.schema import ArchConfig, ModelProvider, Routing
from ext_proc.config.section import Section

_GUARD = "remove it: checking prompts is the work of another filter, before this one"
_AGENTS = "remove it: this server routes calls to models, not to agents"
_CALLS = "remove it: this server routes model calls and never calls other services"
_ENVOY = "remove it and set it in Envoy's own configuration"
_SESSION = "remove it: a session's target is computed from its key, so nothing is stored"
_ROUTER = 'remove it and choose the router under "routing": {"router": …}'

FOREIGN: Mapping[type[Section], Mapping[str, str]] = {
    ArchConfig: {
        "agents": _AGENTS,
        "endpoints": "remove it and give each provider its base_url or cluster",
        "error_target": _CALLS,
        "filters": _GUARD,
        "listener": 'write "envoy: {listener: {address: …, port: …}}"',
        "mode": "remove it: this server has one mode",
        "model_metrics_sources": "remove it: the written order of models is used",
        "overrides": _ROUTER,
        "prompt_caching": "remove it: sessions stay on one target without it",
        "prompt_guards": _GUARD,
        "prompt_targets": _CALLS,
        "ratelimits": "remove it and use Envoy's rate limit filters",
        "state_storage": "remove it: this server keeps no conversations",
        "state_storage_v1_responses": "remove it: this server keeps no conversations",
        "system_prompt": "remove it: this server changes nothing in a prompt",
        "tracing": _ENVOY,
    },
    ModelProvider: {
        "headers": "remove it and add headers in Envoy's own configuration",
        "http_host": "remove it and write that host in base_url",
        "provider": 'write "model: provider/model" instead',
        "rate_limits": "remove it and use Envoy's rate limit filters",
    },
    Routing: {
        "llm_provider": _ROUTER,
        "model": _ROUTER,
        "routing_budget": "remove it: this server has no budgets",
        "session_cache": _SESSION,
        "session_max_entries": _SESSION,
        "session_ttl_seconds": _SESSION,
    },
    ArchListener: {
        "agents": _AGENTS,
        "input_filters": _GUARD,
        "max_retries": _ENVOY,
        "output_filters": _GUARD,
        "router": _AGENTS,
    },
    ArchListeners: {
        "ingress_traffic": "remove it: only egress_traffic, the calls to models, is served here",
    },
}
