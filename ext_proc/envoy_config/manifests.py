"""Kubernetes manifests as YAML text, each under a comment that says what it is for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ext_proc.core.settings import Upstream, is_loopback

NAME = "arch-ext-proc"
"""What every resource is called, or begins with."""


class CannotRender(Exception):
    """A mesh has no words for something in the configuration; the text says for what, and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the manifests go. `gateway`: the value of the label `istio` of a gateway's pods, or the class of
    gateways."""

    namespace: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`why` is a comment of one or more lines."""

    why: str
    body: Mapping[str, Any]


def manifest(why: str, api: str, kind: str, name: str, namespace: str, spec: Mapping[str, Any]) -> Manifest:
    metadata = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": NAME}}
    return Manifest(why, {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": dict(spec)})


def as_yaml(header: str, manifests: Iterable[Manifest]) -> str:
    """A stream of documents. Text that YAML 1.1 would take for something else is quoted by the library."""
    return header + "".join(
        "---\n" + "".join(f"# {line}\n" for line in entry.why.splitlines()) + _dump(entry.body)
        for entry in manifests
    )


def _dump(body: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(body), sort_keys=False, allow_unicode=True, width=100)


def is_name(host: str) -> bool:
    """Whether a host is a name, and no address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def refuse_loopback(upstreams: Iterable[Upstream]) -> None:
    """Errors: CannotRender, for a provider that a pod would look for in itself."""
    for upstream in upstreams:
        if is_loopback(upstream.host):
            text = f"Envoy's pods would look for a provider in themselves, at {upstream.host}:{upstream.port}"
            raise CannotRender(f"{text}: write the host that the cluster knows in base_url")


def label(text: str) -> str:
    """Text as part of a resource's name: lower-case letters, digits and dashes, 40 at most."""
    kept = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in text.lower())
    return kept[:40].strip("-") or "x"
