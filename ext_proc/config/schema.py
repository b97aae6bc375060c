"""The shape of `arch_config.yaml`, published archgw and Plano files included.

Every key is checked by itself here; what holds between keys is checked where they are resolved. The
entries of a list are optional so that one bad entry can be set aside while the rest is still checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ext_proc.config.base_url import BaseUrl, parse_base_url, parse_otlp_endpoint
from ext_proc.config.envoy_schema import Envoy, Listeners
from ext_proc.config.rollout_schema import Rollout, Rollouts
from ext_proc.config.secret_file import SecretText
from ext_proc.config.section import Section
from ext_proc.config.values import (
    Cluster,
    CredentialHeader,
    Description,
    Device,
    Example,
    File,
    Host,
    Identity,
    Mode,
    Model,
    Money,
    Name,
    Percent,
    Port,
    Socket,
    Status,
    Text,
    Threshold,
    Weight,
    duration,
    size,
    whole,
)
from ext_proc.core.types import WHOLE_PER_10K

MAX_PROVIDERS = 1_000
MAX_POLICIES = 500
MAX_ALIASES = 1_000
MAX_RANKED = 32
MAX_SHADOWS = 8
MAX_STATUSES = 64
MAX_IDS = 10_000
MAX_EXAMPLES = 32
MAX_CLIENT_NAMES = 64
MAX_WORKERS = 64


Examples = Annotated[list[Example | None], Field(max_length=MAX_EXAMPLES)]


class InlinePreference(Section):
    """A policy written under the provider that serves it (archgw, 2025)."""

    name: Name
    description: Description
    domain: Name | None = None
    examples: Examples | None = None
    not_examples: Examples | None = None


Interface = Literal[
    "anthropic",
    "arch",
    "chatgpt",
    "claude",
    "deepseek",
    "digitalocean",
    "edenai",
    "gemini",
    "groq",
    "mistral",
    "moonshotai",
    "openai",
    "openrouter",
    "plano",
    "vercel",
    "xai",
    "xiaomi",
]
"""Whose conventions an unknown prefix follows. Source: the published archgw and Plano schemas."""


class ProviderPrice(Section):
    input_per_million: Money
    output_per_million: Money


class SupportsSection(Section):
    dialects: (
        list[Literal["chat_completions", "responses", "messages", "completions", "embeddings"] | None] | None
    ) = Field(default=None, min_length=1)
    images: bool = True
    tools: bool = True
    context_tokens: Annotated[int, BeforeValidator(whole(1, 1_000_000_000))] | None = None


class ModelProvider(Section):
    model: Model
    name: Name | None = None
    default: bool = False
    cluster: Cluster | None = None
    base_url: Annotated[BaseUrl, BeforeValidator(parse_base_url)] | None = None
    access_key: SecretText | None = Field(default=None, repr=False)
    credential_header: CredentialHeader | None = None
    passthrough_auth: bool = False
    provider_interface: Interface | None = None
    price: ProviderPrice | None = None
    supports: SupportsSection = SupportsSection()
    max_requests: Annotated[int, BeforeValidator(whole(1, 1_000_000))] | None = None
    routing_preferences: list[InlinePreference | None] | None = Field(default=None, max_length=MAX_POLICIES)


class Alias(Section):
    target: Name


class WeightedTarget(Section):
    model: Name
    weight: Weight


class ShadowTarget(Section):
    model: Name
    percent: Percent
    max_concurrent: Annotated[int, BeforeValidator(whole(1, 10_000))] = 64
    max_per_minute: Annotated[int, BeforeValidator(whole(1, 1_000_000))] | None = None
    max_body: Annotated[int, BeforeValidator(size("1KiB", "1GiB"))] = 1 << 20
    noise_floor: bool = False


class SelectionPolicy(Section):
    prefer: Literal["none", "cheapest", "fastest"] = "none"


Split = Literal["ext_proc", "envoy"]


Stickiness = Literal["session", "user", "request"]


class Canary(Section):
    """Session or user ids that get the canary whatever its weight, and those that never do."""

    always: list[Identity | None] | None = Field(default=None, min_length=1, max_length=MAX_IDS)
    never: list[Identity | None] | None = Field(default=None, min_length=1, max_length=MAX_IDS)


class Ejection(Section):
    failures: Annotated[int, BeforeValidator(whole(1, 10_000))] | None = None
    time: Annotated[float, BeforeValidator(duration("1s", "24h"))] | None = None


class Failover(Section):
    """A policy's: what it leaves out is as in `routing.failover`, and then as in `core.types.Retry`."""

    statuses: list[Status | None] | None = Field(default=None, min_length=1, max_length=MAX_STATUSES)
    per_try_timeout: Annotated[float, BeforeValidator(duration("10ms", "24h"))] | None = None
    attempts: Annotated[int, BeforeValidator(whole(1, MAX_RANKED))] | None = None
    ejection: Ejection = Ejection()


class Preference(InlinePreference):
    """A policy with its targets: ranked `models`, or `targets` with weights."""

    models: list[Name | None] | None = Field(default=None, min_length=1, max_length=MAX_RANKED)
    targets: list[WeightedTarget | None] | None = Field(default=None, min_length=1, max_length=MAX_RANKED)
    split: Split | None = None
    sticky: Stickiness | None = None
    canary: Canary = Canary()
    fallbacks: list[Name | None] | None = Field(default=None, min_length=1, max_length=MAX_RANKED)
    failover: Failover = Failover()
    shadow: list[ShadowTarget | None] | None = Field(default=None, max_length=MAX_SHADOWS)
    selection_policy: SelectionPolicy | None = None
    observe: bool = False
    rollout: Rollout | None = None


class Breaker(Section):
    failures: Annotated[int, BeforeValidator(whole(1, 1_000))] = 5
    pause: Annotated[float, BeforeValidator(duration("100ms", "10m"))] = 5.0


class RouterSection(Section):
    """One router. Which keys go with which type is checked in `routers.py`."""

    type: Literal["embedded", "transformers", "openai"] = "embedded"
    max_waiting: Annotated[int, BeforeValidator(whole(1, 10_000))] = 64
    threshold: Threshold | None = None
    model: Text | None = None
    prompt: Literal["archgw", "model-card", "plano-orchestrator"] | None = None
    budget: Annotated[int, BeforeValidator(whole(64, 32_768))] | None = None
    device: Device | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = None
    max_batch: Annotated[int, BeforeValidator(whole(1, 256))] | None = None
    engine: Text | None = None
    base_url: Annotated[BaseUrl, BeforeValidator(parse_base_url)] | None = None
    access_key: SecretText | None = Field(default=None, repr=False)
    guided: Literal["off", "json-schema", "structured-outputs", "guided-choice", "grammar"] | None = None
    max_concurrent: Annotated[int, BeforeValidator(whole(1, 4_096))] | None = None
    breaker: Breaker | None = None
    fallback: Literal["embedded"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare_type(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value


class ShadowRouter(RouterSection):
    """A router that is asked as well, and whose answers change nothing."""

    percent: Percent = WHOLE_PER_10K
    deadline: Annotated[float, BeforeValidator(duration("1ms", "10m"))] = 10.0


class Confidence(Section):
    threshold: Threshold = 0.0
    margin: Threshold = 0.0


class Cache(Section):
    size: Annotated[int, BeforeValidator(whole(0, 1_000_000))] = 4_096
    ttl: Annotated[float, BeforeValidator(duration("1s", "24h"))] = 600.0


class Memory(Section):
    size: Annotated[int, BeforeValidator(whole(0, 10_000_000))] = 100_000
    ttl: Annotated[float, BeforeValidator(duration("1s", "24h"))] = 3_600.0


class Record(Section):
    path: Text
    redact: bool = True
    max_size: Annotated[int, BeforeValidator(size("64KiB", "64GiB"))] = 64 << 20


class Routing(Section):
    router: RouterSection = RouterSection()
    shadow_router: ShadowRouter | None = None
    confidence: Confidence = Confidence()
    cache: Cache = Cache()
    record: Record | None = None
    deadline: Annotated[float, BeforeValidator(duration("1ms", "1m"))] = 0.2
    on_failure: Name = "default"
    split: Split = "ext_proc"
    failover: Failover = Failover()


class Affinity(Section):
    salt: SecretText | None = Field(default=None, repr=False)
    sticky: Stickiness = "session"
    tester_key: SecretText | None = Field(default=None, repr=False)
    memory: Memory = Memory()


class Judge(Section):
    model: Name
    timeout: Annotated[float, BeforeValidator(duration("100ms", "10m"))] = 30.0
    max_concurrent: Annotated[int, BeforeValidator(whole(1, 100))] = 2
    percent: Percent = 10_000


class Samples(Section):
    path: Text
    redact: bool = True
    max_size: Annotated[int, BeforeValidator(size("4KiB", "1GiB"))] = 16 << 20


class ComparisonSection(Section):
    pair_timeout: Annotated[float, BeforeValidator(duration("1s", "1h"))] = 120.0
    max_pairs: Annotated[int, BeforeValidator(whole(1, 100_000))] = 1_000
    max_text: Annotated[int, BeforeValidator(size("1KiB", "1MiB"))] = 64 << 10
    judge: Judge | None = None
    samples: Samples | None = None


class ServerTlsSection(Section):
    certificate: File
    key: File
    client_ca: File | None = None
    client_names: list[Text | None] | None = Field(default=None, min_length=1, max_length=MAX_CLIENT_NAMES)


class Server(Section):
    address: Host = "127.0.0.1"
    port: Port = 50_051
    socket: Socket | None = None
    socket_mode: Mode = 0o660
    tls: ServerTlsSection | None = None
    token: Text | None = Field(default=None, repr=False)
    trust_network: bool = False
    workers: Annotated[int, BeforeValidator(whole(1, MAX_WORKERS))] = 1
    drain: Annotated[float, BeforeValidator(duration("0s", "10m"))] = 10.0


class Admin(Section):
    address: Host = "127.0.0.1"
    port: Port = 9_902
    token: SecretText | None = Field(default=None, repr=False)


class Otlp(Section):
    endpoint: Annotated[BaseUrl, BeforeValidator(parse_otlp_endpoint)]
    percent: Percent = WHOLE_PER_10K


class TelemetrySection(Section):
    otlp: Otlp | None = None
    log_content: bool = False


Providers = Annotated[list[ModelProvider | None], Field(min_length=1, max_length=MAX_PROVIDERS)]
Version = Literal["v0.1", "v0.1.0", "0.1-beta", "0.2.0", "v0.2.0", "v0.3.0", "v0.4.0"]
"""Source: the published archgw and Plano schemas."""


class ArchConfig(Section):
    version: Version | None = None
    listeners: Listeners | None = None
    model_providers: Providers | None = None
    llm_providers: Providers | None = None
    model_aliases: dict[Name, Alias] | None = Field(default=None, max_length=MAX_ALIASES)
    routing_preferences: list[Preference | None] | None = Field(default=None, max_length=MAX_POLICIES)
    routing: Routing = Routing()
    affinity: Affinity = Affinity()
    comparison: ComparisonSection = ComparisonSection()
    rollouts: Rollouts = Rollouts()
    server: Server = Server()
    admin: Admin = Admin()
    telemetry: TelemetrySection = TelemetrySection()
    envoy: Envoy = Envoy()
