"""The shape of `envoy`, and of the `listeners` that archgw and Plano have instead of a part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Tag

from ext_proc.config.section import Section
from ext_proc.config.values import Cluster, File, Ip, Name, Port, Text, duration, size, wrong

ENVOY_PORT = 10_000
ARCHGW_PORT = 12_000
"""What archgw and Plano listen on where their file names no port."""

REQUEST_TIMEOUT_S = 600.0
"""How long Envoy waits for an answer's last byte: the default of the OpenAI and Anthropic clients."""


class EnvoyListener(Section):
    address: Ip = "127.0.0.1"
    port: Port = ENVOY_PORT


class EnvoyAdmin(Section):
    address: Ip = "127.0.0.1"
    port: Port = 9_901


class ExtProcTlsSection(Section):
    """Files of Envoy's machine."""

    ca: File | None = None
    certificate: File | None = None
    key: File | None = None
    sds: File | None = None
    name: Text | None = None


class Envoy(Section):
    listener: EnvoyListener | None = None
    admin: EnvoyAdmin | None = EnvoyAdmin()
    ext_proc_cluster: Cluster = "arch_ext_proc"
    ext_proc_tls: ExtProcTlsSection = ExtProcTlsSection()
    cluster_naming: Literal["host", "istio"] = "host"
    message_timeout: Annotated[float, BeforeValidator(duration("5ms", "5m"))] = 0.5
    request_timeout: Annotated[float, BeforeValidator(duration("1s", "24h"))] | None = None
    body_limit: Annotated[int, BeforeValidator(size("64KiB", "1GiB"))] = 32 << 20
    pass_cookies: bool = False
    body_mode: Literal["buffered", "streamed"] = "buffered"
    decision_window: Annotated[int, BeforeValidator(size("1KiB", "1GiB"))] | None = None


def _listener_type(value: object) -> object:
    if value in ("agent", "prompt"):
        raise wrong("is not served here", "remove this listener: only calls to models are")
    return value


class ArchListener(Section):
    """A listener as archgw (a mapping by name) and Plano (a list) write it."""

    type: Annotated[Literal["model"], BeforeValidator(_listener_type)] = "model"
    name: Name | None = None
    address: Ip = "0.0.0.0"
    port: Port = ARCHGW_PORT
    message_format: Literal["openai"] = "openai"
    timeout: Annotated[float, BeforeValidator(duration("1s", "24h"))] | None = None


class ArchListeners(Section):
    egress_traffic: ArchListener | None = None


def _listeners_kind(value: object) -> str:
    return "list" if isinstance(value, list) else "map"


Listeners = Annotated[
    Annotated[ArchListeners, Tag("map")] | Annotated[list[ArchListener | None], Tag("list")],
    Discriminator(_listeners_kind),
]
