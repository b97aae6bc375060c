"""The names of the headers and metadata that pass between this server and Envoy, in one place."""

from __future__ import annotations

CLUSTER = "x-arch-cluster"
POLICY = "x-arch-policy"
MODEL = "x-arch-model"
ARM = "x-arch-arm"
BUCKET = "x-arch-bucket"
SHADOW = "x-arch-shadow"
REASON = "x-arch-reason"

SPLIT = "x-arch-split"
"""The policy that Envoy splits itself, by the bucket, on a request for that policy."""

WRITTEN_FOR = "x-arch-written-for"
"""The target that the route role made the request fit for. Gone once an attempt made it fit for another."""

FAILOVER = "x-arch-failover"
"""On a request that goes to a chain: how long one attempt may take, in milliseconds."""

ATTEMPT = "x-arch-attempt"
"""The target that an attempt goes to, as Envoy says it."""

ATTEMPTS = "x-arch-attempts"
"""On the answer to a request that went to a chain: how many targets were tried."""

OBSERVE = "x-arch-observe"
"""The answer is looked at. Its value, a random one, is where the answers to one request meet: a client may
use one `x-request-id` for many requests."""

NOISE = "x-arch-noise"
"""Like `SHADOW`, for a copy to the model that answers itself."""

COPIES = (SHADOW, NOISE)
"""What names the clusters of copies."""

DECISION = (
    *(CLUSTER, POLICY, MODEL, ARM, BUCKET, SHADOW, REASON, SPLIT),
    *(WRITTEN_FOR, FAILOVER, ATTEMPT, OBSERVE, NOISE),
)
"""Only this server may set these: Envoy strips them from what clients send, before it routes."""

UNTIL_ROUTED = (CLUSTER, SPLIT, FAILOVER)
"""What only the choice of a route and a cluster needs: Envoy removes them then."""

SHOWN_TO_CLIENT = (POLICY, MODEL, REASON)
"""Copied onto the response by Envoy, so that no answer phase is needed."""

TRY_ARM, TRY_KEY = "x-arch-try-arm", "x-arch-try-key"
"""A tester names an arm in the first and proves to be one with the second. No provider sees either."""

COOKIES = "cookie", "set-cookie"
"""A client's are for the gateway or its applications, a provider's for itself: neither goes further, unless
the file says otherwise."""

OF_THE_CLIENTS_HOP = ("proxy-authorization",)
"""A client's credential for a proxy, which no provider is. Source: RFC 9110, 11.7.2."""

OF_THE_PROVIDERS_HOP = ("alt-svc", "openai-organization", "openai-project")
"""What answers say that is not for clients: where else the provider listens, and whose account it is."""

SESSION_PINS = ("x-arch-session", "x-model-affinity")
"""A client names its session in one of these; the first one present counts."""

READ_BY_SERVER = (
    ":method",
    ":path",
    "content-type",
    "content-encoding",
    "content-length",
    "x-request-id",
    "traceparent",
    *SESSION_PINS,
)
"""All that Envoy needs to send us: credentials and cookies never reach this server."""

READ_OF_ATTEMPTS = (ATTEMPT, MODEL)
"""What Envoy sends besides for an attempt: where it goes, and whom the request was last written for."""

READ_BY_OBSERVER = (
    *(":status", "content-type", "content-encoding", "x-request-id"),
    *(OBSERVE, POLICY, MODEL, ARM, BUCKET, SHADOW, NOISE),
)
"""All that the observe role gets of a request and its answer, besides the answer's body."""

LOGGED_OF_BREAKS = (OBSERVE, POLICY, MODEL, ARM, BUCKET, WRITTEN_FOR)
"""What Envoy logs to this server of a request whose answer a provider broke off, after its last attempt."""

LOGGED_OF_BROKEN_ANSWERS = (MODEL, ATTEMPTS)
"""What it logs of that answer."""

READ_OF_COPIES = (":status", OBSERVE, POLICY, MODEL)
"""What the shadow role gets besides: whose copy it is, and the answer's status."""

METADATA_NAMESPACE = "arch_ext_proc"
"""The dynamic metadata namespace that carries a decision to Envoy's access log."""

ROLE = "x-arch-role"
"""gRPC initial metadata: which role a stream plays."""

ENVOY_HAS = "x-arch-envoy-hosts"
"""Stream metadata: which clusters and splits Envoy has, and of which hosts, as `core.envoy_side` says it."""

SENDS = "x-arch-sends"
SENDS_REQUEST = "request"
"""Stream metadata of a filter that shows the request's headers and body and no more: once it has been told
what to do about those, its stream may end."""

ROLE_ROUTE = "route"
"""The listener's filter: reads a request and decides."""

ROLE_ATTEMPT = "attempt"
"""The filter of a chain's cluster: makes a request fit for the target that comes next."""

ROLE_SHADOW = "shadow"
"""The filter of a shadow cluster: makes a copy fit for the target that `TARGET` names."""

ROLE_OBSERVE = "observe"
"""The listener's second filter: sees answers pass, and says nothing."""

TOKEN = "x-arch-token"
"""gRPC initial metadata: what a caller shows where the file has `server.token`."""

TARGET = "x-arch-target"
"""gRPC initial metadata of the shadow role: the target's name in the configuration."""

ENDPOINT = r"/(chat/completions|responses|messages|completions|embeddings)$"
"""How a path of any provider ends, less its query, when it is an LLM call."""

LLM_PATH = r"(?:/[^/?]+)*?/v1/(?:chat/completions|responses|messages|completions|embeddings)"
"""A path, less its query, that is an LLM call: RE2 and Python read it alike; matches must be full."""
