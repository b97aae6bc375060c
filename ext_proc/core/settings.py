"""One configuration file, checked and resolved: what decides (`Snapshot`) and how the parts are set up."""

from __future__ import annotations

from dataclasses import dataclass

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


_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean all of the machine's own, none of which a client can connect to as such."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The hosts behind one Envoy cluster, as far as `base_url` tells them."""

    cluster: str
    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Which router, and its limits.

    `threshold` overrides the weights' own "none of them" point. `max_waiting` bounds the requests
    that wait for the router; one more gets the default target at once.
    """

    type: str
    deadline_s: float
    threshold: float | None
    max_waiting: int


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The gRPC side. `drain_s` is how long streams in flight may finish after SIGTERM."""

    listen: Address
    drain_s: float


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """What `render` writes into Envoy's configuration.

    `failure_credential_env` names the environment variable of the Envoy process that holds the
    default provider's key, for requests that reach no ext_proc server. None: that provider has no
    key, or one that does not come from a variable.
    """

    listener: Address
    admin: Address | None
    ext_proc_cluster: str
    message_timeout_s: float
    request_timeout_s: float
    body_limit_bytes: int
    failure_credential_env: str | None


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
    rollouts: RolloutSettings = RolloutSettings()  # noqa: RUF009 - frozen
    admin_token: Secret | None = None
