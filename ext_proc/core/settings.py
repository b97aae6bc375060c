"""One configuration file, checked and resolved: what decides (`Snapshot`) and how the parts are set up."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum

from ext_proc.core.prompt import Variant
from ext_proc.core.rollout_settings import RolloutSettings
from ext_proc.core.types import Credential, Secret, Snapshot


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 lets the system choose."""

    host: str
    port: int

    @property
    def reached_locally(self) -> Address:
        """Where a client on the same machine finds whoever listens here."""
        return Address(_LOOPBACK_OF.get(self.host, self.host), self.port)

    def at(self, port: int) -> Address:
        """The address once the system has chosen a port."""
        return Address(self.host, port)

    def next(self, index: int) -> Address:
        """The address so many ports further."""
        return Address(self.host, self.port + index)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect. Of a name, that is certain of `localhost` alone."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether a host leads to this machine and nowhere else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Pipe:
    """A Unix socket, as Envoy calls it. `mode` is its file's: who may connect."""

    path: str
    mode: int = 0o660

    @property
    def reached_locally(self) -> Pipe:
        return self

    def at(self, _: int) -> Pipe:
        return self

    def next(self, index: int) -> Pipe:
        """A socket beside this one; at 0 this one."""
        return Pipe(f"{self.path}.{index}", self.mode) if index else self

    def __str__(self) -> str:
        return f"unix:{self.path}"


_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean all of the machine's own, none of which a client can connect to as such."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The hosts behind one Envoy cluster, as far as `base_url` tells them.

    `max_requests` bounds the requests that the cluster has at a time; None: nothing does.
    """

    cluster: str
    host: str
    port: int
    tls: bool
    max_requests: int | None = None


class Guided(StrEnum):
    """How an OpenAI-compatible server is told which answers are possible.

    Sources: the OpenAI API reference (`response_format`), vLLM's documentation of structured outputs
    (`structured_outputs`; `guided_choice` before 0.12) and llama.cpp's server (`grammar`).
    """

    OFF = "off"
    JSON_SCHEMA = "json-schema"
    STRUCTURED_OUTPUTS = "structured-outputs"
    GUIDED_CHOICE = "guided-choice"
    GRAMMAR = "grammar"


@dataclass(frozen=True, slots=True)
class CausalLmSettings:
    """A language model that routes, in a process of ours.

    `model` is a folder or a hub id; `device` and `dtype` are torch's names, or `auto`. `engine` is the
    Unix socket of a process that holds the weights for several servers; None: they are in this one.
    """

    model: str
    prompt: Variant
    budget_tokens: int
    device: str
    dtype: str
    max_batch: int
    engine: str | None


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """A language model that routes, behind an OpenAI-compatible server.

    `url` is that of its chat completions. `guided` says how the server is told what may be answered.
    `max_concurrent` requests are under way at most. After `breaker_failures` in a row none is sent for
    `breaker_pause_s`, then one to see. `fallback` names the type of the router that answers instead.
    """

    url: str
    model: str
    credential: Credential | None
    prompt: Variant
    budget_tokens: int
    guided: Guided
    max_concurrent: int
    breaker_failures: int
    breaker_pause_s: float
    fallback: str | None


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How many things are remembered, and how long. `size` 0: none."""

    size: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Which router, and its limits.

    `threshold` overrides the weights' own "none of them" point. `max_waiting` bounds the questions
    that wait for the router; one more gets the default target at once. `causal_lm` is there for the type
    `transformers`, `endpoint` for `openai`. `cache` holds its verdicts.
    """

    type: str
    deadline_s: float
    threshold: float | None
    max_waiting: int
    causal_lm: CausalLmSettings | None = None
    endpoint: EndpointSettings | None = None
    cache: MemorySettings = MemorySettings(size=0, ttl_s=0)


@dataclass(frozen=True, slots=True)
class ShadowRouterSettings:
    """A second router, asked about a share of the conversations and never obeyed."""

    router: RouterSettings
    percent_per_10k: int


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """Where decisions are recorded. `max_bytes` bounds what is kept on disk, the newest of it."""

    path: str
    redact: bool
    max_bytes: int


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of the gRPC port. With `client_ca`, callers must show a certificate of one of its
    authorities; with `client_names`, one that has one of these names."""

    certificate: str
    key: str
    client_ca: str | None = None
    client_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The gRPC side. `drain_s` is how long streams in flight may finish after SIGTERM.

    `token` is what callers must show; `token_env` the variable that it came from, in Envoy's environment
    too. Of several `workers` the first listens at `listen`, each other at the next port or a socket beside
    that.
    """

    listen: Address | Pipe
    drain_s: float
    tls: ServerTls | None = None
    token: Secret | None = None
    token_env: str | None = None
    workers: int = 1

    def of_worker(self, index: int) -> Address | Pipe:
        """Where the worker `index`, from 0, listens."""
        return self.listen.next(index)

    @property
    def endpoints(self) -> tuple[Address | Pipe, ...]:
        """Where an Envoy on the same machine finds the workers."""
        return tuple(self.of_worker(index).reached_locally for index in range(self.workers))


@dataclass(frozen=True, slots=True)
class ExtProcTls:
    """What Envoy needs for a server with TLS: files of its machine, and the name to find in the certificate.

    `ca` None: the system's authorities. `name` None: the host that it connects to. `sds` is a file that tells
    of a certificate and key that Envoy is to watch, in the place of both.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    name: str | None = None
    sds: str | None = None


BODY_GROWTH_BYTES = 64 << 10
"""How much longer a body may become when its model gets another name. Envoy has room for it, since its limit
holds for what a body is replaced with, too. No name is longer: it must fit into a header."""


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """What `render` writes into Envoy's configuration.

    `failure_credential_env` names the environment variable of the Envoy process that holds the
    default provider's key, for requests that reach no ext_proc server. None: that provider has no
    key, or one that does not come from a variable. `streams_bodies`: bodies come to the server in pieces,
    and it waits for `decision_window_bytes` of each.
    """

    listener: Address
    admin: Address | None
    ext_proc_cluster: str
    message_timeout_s: float
    request_timeout_s: float
    body_limit_bytes: int
    failure_credential_env: str | None
    pass_cookies: bool = False
    ext_proc_tls: ExtProcTls = ExtProcTls()
    streams_bodies: bool = False
    decision_window_bytes: int = 32 << 20

    @property
    def buffer_limit_bytes(self) -> int:
        """The largest body that Envoy holds: one of the limit, with another model's name in it."""
        return self.body_limit_bytes + BODY_GROWTH_BYTES


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """The model that says which of two answers is better. `url` is its chat completions endpoint."""

    url: str
    model: str
    credential: Credential | None
    timeout_s: float
    max_concurrent: int
    percent_per_10k: int


@dataclass(frozen=True, slots=True)
class SamplesSettings:
    """Where compared answers are written, for people to read. `max_bytes` bounds the file."""

    path: str
    redact: bool
    max_bytes: int


@dataclass(frozen=True, slots=True)
class ComparisonSettings:
    """How the answers of primaries and copies are compared.

    An answer waits `pair_timeout_s` for its counterpart, in a table of at most `max_pairs`; of each at
    most `max_text_bytes` are kept, and an answer that is longer is not compared by its text.
    """

    pair_timeout_s: float = 120.0
    max_pairs: int = 1_000
    max_text_bytes: int = 64 << 10
    judge: JudgeSettings | None = None
    samples: SamplesSettings | None = None


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """Where spans go: an OTLP collector that speaks gRPC.

    `sample` is the share, 0 to 1, of the decisions whose request is in no trace; others follow their parent.
    """

    endpoint: str
    sample: float


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is told beyond metrics. `log_content`: the bodies of requests go into the log."""

    tracing: TracingSettings | None = None
    log_content: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything one `arch_config.yaml` says.

    `upstreams` has one entry per cluster, in file order. `admin_token` is what the admin API wants of
    whoever changes something.
    """

    snapshot: Snapshot
    router: RouterSettings
    server: ServerSettings
    admin: Address
    envoy: EnvoySettings
    upstreams: tuple[Upstream, ...]
    comparison: ComparisonSettings = ComparisonSettings()
    sessions: MemorySettings = MemorySettings(size=0, ttl_s=0)
    shadow_router: ShadowRouterSettings | None = None
    record: RecordSettings | None = None
    rollouts: RolloutSettings = RolloutSettings()  # noqa: RUF009 - frozen
    admin_token: Secret | None = None
    telemetry: TelemetrySettings = TelemetrySettings()
