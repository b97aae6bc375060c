"""Configurations and their parts, with defaults, so that a test names only what it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ext_proc.core.settings import (
    Address,
    Configuration,
    EnvoySettings,
    RouterSettings,
    ServerSettings,
    Upstream,
)
from ext_proc.core.types import Arm, Credential, Policy, Route, Secret, Shadow, Snapshot, Target

LOOPBACK = Address("127.0.0.1", 0)


def a_credential(value: str = "Bearer sk-test", header: str = "authorization") -> Credential:
    return Credential(header, Secret(value))


def a_target(name: str = "openai/small", **changes: Any) -> Target:
    """A target whose cluster has the name of its provider."""
    prefix, _, model = name.partition("/")
    return replace(Target(name=name, model=model, cluster=prefix), **changes)


def a_route(*targets: Target, policy: str = "coding", shadows: tuple[Shadow, ...] = ()) -> Route:
    """A route that gives each target the same share; the first takes what is left over."""
    share = 10_000 // len(targets)
    names = ("baseline", "canary", *(f"canary-{number}" for number in range(2, len(targets))))
    shares = (10_000 - share * (len(targets) - 1), *(share for _ in targets[1:]))
    arms = tuple(Arm(*parts) for parts in zip(names, targets, shares, strict=False))
    return Route(Policy(policy, f"about {policy}"), arms, shadows)


def a_shadow(target: Target, percent: float = 100.0) -> Shadow:
    return Shadow(target, round(percent * 100))


def a_snapshot(default: Target | None = None, routes: tuple[Route, ...] = (), **changes: Any) -> Snapshot:
    """A snapshot that knows every target that its routes name."""
    default = default or a_target()
    mentioned = [default]
    for route in routes:
        mentioned += [arm.target for arm in route.arms]
        mentioned += [shadow.target for shadow in route.shadows]
        mentioned += route.fallbacks
    snapshot = Snapshot(
        revision="r1",
        policies=tuple(route.policy for route in routes),
        routes={route.policy.name: route for route in routes},
        targets={target.name: target for target in mentioned},
        models={target.model: target for target in mentioned},
        aliases={},
        default=default,
        on_failure=default,
        salt=b"salt",
    )
    return replace(snapshot, **changes)


def an_upstream(
    cluster: str = "openai", host: str = "127.0.0.1", port: int = 9, tls: bool = False
) -> Upstream:
    return Upstream(cluster, host, port, tls)


def envoy_settings(**changes: Any) -> EnvoySettings:
    """Ephemeral ports on loopback, and limits that keep a failing test short."""
    settings = EnvoySettings(
        listener=LOOPBACK,
        admin=LOOPBACK,
        ext_proc_cluster="arch_ext_proc",
        message_timeout_s=0.5,
        request_timeout_s=20.0,
        body_limit_bytes=32 << 20,
        failure_credential_env=None,
    )
    return replace(settings, **changes)


def a_configuration(
    default: Target | None = None,
    *,
    routes: tuple[Route, ...] = (),
    upstreams: tuple[Upstream, ...] = (),
    **envoy: Any,
) -> Configuration:
    """A whole configuration; keyword arguments beyond its parts change the Envoy settings."""
    return Configuration(
        snapshot=a_snapshot(default, routes),
        router=RouterSettings(type="rules", deadline_s=0.2, threshold=None, max_waiting=16),
        server=ServerSettings(listen=LOOPBACK, drain_s=1.0),
        admin=LOOPBACK,
        envoy=envoy_settings(**envoy),
        upstreams=upstreams,
    )
