"""What a provider's `base_url` says: host, port, TLS, path prefix. And where well-known providers are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from ext_proc.config.values import host, wrong

_PORTS = {"http": 80, "https": 443}
_OTLP_PORT = 4317
"""Source: the OpenTelemetry protocol's specification, "OTLP/gRPC Default Port"."""
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_EXAMPLE = "write e.g. https://api.openai.com/v1"
_ENDPOINTS = ("/chat/completions", "/responses", "/messages", "/completions", "/embeddings")


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """`path` stands where the client's path has `/v1`; empty: the client's path goes on unchanged."""

    host: str
    port: int
    tls: bool
    path: str

    @property
    def authority(self) -> str:
        """The Host header: the port only where it is not the scheme's own."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS["https" if self.tls else "http"] else f"{name}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def cluster(self) -> str:
        """An Envoy cluster name for these hosts, without the colons that its statistics would rewrite."""
        return self.authority.strip("[").replace("]", "").replace(":", "_")


def parse_base_url(value: object) -> BaseUrl:
    """Read a base URL. Errors: pydantic's, naming what is wrong and never the value, which may hold a key."""
    if not isinstance(value, str):
        raise wrong("is not a URL", _EXAMPLE)
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        raise wrong("is not a URL: its host or port cannot be read", _EXAMPLE) from None
    if url.scheme not in _PORTS:
        raise wrong("must begin with http:// or https://", _EXAMPLE)
    if url.username is not None or url.password is not None:
        raise wrong("holds a user name or a password", "give the credential in access_key")
    if url.query or url.fragment or "?" in value or "#" in value:
        raise wrong("has a query or a fragment", "write the host and the path before /chat/completions only")
    name = url.hostname or ""
    try:
        host(name)
    except Exception:  # noqa: BLE001 the reason would repeat the value
        name = ""
    if not name or port == 0:
        raise wrong("names no host", _EXAMPLE)
    path = url.path.rstrip("/")
    if not _PATH.fullmatch(path):
        raise wrong("has a path with characters that need escaping", "percent-encode them")
    if path.endswith(_ENDPOINTS):
        raise wrong("ends in an endpoint", "leave out what follows /v1")
    return BaseUrl(name, port or _PORTS[url.scheme], url.scheme == "https", path)


def parse_otlp_endpoint(value: object) -> BaseUrl:
    """Read where an OTLP collector listens for gRPC. Errors: as those of `parse_base_url`."""
    url = parse_base_url(value)
    if url.path:
        raise wrong("has a path", "write host and port, e.g. http://collector:4317: gRPC has its own paths")
    return url if urlsplit(str(value)).port else replace(url, port=_OTLP_PORT)


@dataclass(frozen=True, slots=True)
class Provider:
    """What a provider prefix implies where the file says nothing."""

    base_url: BaseUrl
    credential_header: str = "authorization"


def _at(url: str) -> Provider:
    return Provider(parse_base_url(url))


WELL_KNOWN: Mapping[str, Provider] = {
    "openai": _at("https://api.openai.com/v1"),
    "anthropic": Provider(parse_base_url("https://api.anthropic.com/v1"), "x-api-key"),
    "groq": _at("https://api.groq.com/openai/v1"),
    "mistral": _at("https://api.mistral.ai/v1"),
    "deepseek": _at("https://api.deepseek.com/v1"),
    "xai": _at("https://api.x.ai/v1"),
    "together_ai": _at("https://api.together.ai/v1"),
    "gemini": _at("https://generativelanguage.googleapis.com/v1beta/openai"),
    "openrouter": _at("https://openrouter.ai/api/v1"),
}
"""Where providers serve what follows `/v1` of an OpenAI or Anthropic client.

Source: the default base URL, and the path of a chat completion, in each provider's own Python client:
openai 3.54, anthropic 2.12, groq 1.7, mistralai 3.7, together 3.1 (also docs.together.ai, "OpenAI
compatibility"), openrouter 1.3. Of xai-sdk 1.21 only the host, because it speaks gRPC; the path is that
of docs.x.ai, "REST API reference". DeepSeek: api-docs.deepseek.com, "Your first API call", which
recommends the host alone and takes `/v1` for the sake of OpenAI clients. Gemini:
ai.google.dev/gemini-api/docs/openai.
"""
