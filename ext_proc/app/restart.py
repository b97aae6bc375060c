"""What of a file only a restart puts in force, and what only an Envoy that is rendered from it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from ext_proc.core.envoy_side import needed
from ext_proc.core.rollout_settings import RolloutSettings
from ext_proc.core.settings import Address, Configuration, ServerSettings

_KEYS = {
    "drain_s": "drain",
    "failure_credential_env": "the variable of the default provider's key",
    "lease_s": "lease",
    "listen": "socket",
    "message_timeout_s": "message_timeout",
    "request_timeout_s": "request_timeout",
    "streams_bodies": "body_mode",
    "token_env": "token",
}
"""What fields are called in the file, where it is not as here."""

_OF_THE_SERVER = ("body_limit_bytes", "decision_window_bytes")
"""What stands under `envoy` and counts here, from a restart on or at once."""


def held(
    old: Configuration, new: Configuration, *, with_store: bool
) -> tuple[Configuration, tuple[str, ...]]:
    """The new configuration with what only a restart changes as it was, and the keys that differ in it.

    `with_store`: the rollouts' store is open.
    """
    limit = old.envoy.body_limit_bytes
    kept = replace(
        new,
        server=old.server,
        admin=old.admin,
        envoy=replace(
            new.envoy,
            body_limit_bytes=limit,
            decision_window_bytes=min(limit, new.envoy.decision_window_bytes),
        ),
    )
    keys = [*_differences("server", old.server, new.server), *_addresses("admin", old.admin, new.admin)]
    if new.envoy.body_limit_bytes != limit:
        keys.append("envoy.body_limit")
    if new.telemetry.tracing != old.telemetry.tracing:
        kept = replace(kept, telemetry=replace(new.telemetry, tracing=old.telemetry.tracing))
        keys.append("telemetry.otlp")
    if with_store:
        kept = replace(kept, rollouts=_with_store_of(old.rollouts, new.rollouts))
        for name in ("store", "namespace", "lease_s"):
            if getattr(old.rollouts, name) != getattr(new.rollouts, name):
                keys.append(f"rollouts.{_KEYS.get(name, name)}")
    return kept, tuple(dict.fromkeys(keys))


def rendered_otherwise(began: Configuration, new: Configuration) -> tuple[str, ...]:
    """What `render` writes otherwise for the new configuration than for the one that the process began with.

    Envoy may have been rendered since: what it lacks for decisions, it says itself (`core.envoy_side`).
    """
    keys = []
    for field in fields(new.envoy):
        if field.name not in _OF_THE_SERVER and getattr(began.envoy, field.name) != getattr(
            new.envoy, field.name
        ):
            name = _KEYS.get(field.name, field.name)
            keys.append(name if " " in name else f"envoy.{name}")
    old, default = began.snapshot.default, new.snapshot.default
    if (old.cluster, old.authority, old.path_prefix) != (
        default.cluster,
        default.authority,
        default.path_prefix,
    ):
        keys.append("the default provider")
    hosts = {upstream.cluster: upstream for upstream in began.upstreams}
    keys += [
        f"the hosts of cluster {upstream.cluster}"
        for upstream in new.upstreams
        if hosts.get(upstream.cluster, upstream) != upstream
    ]
    had = needed(began.snapshot)
    keys += [name for mark, name in needed(new.snapshot).items() if mark not in had and name not in hosts]
    return tuple(keys)


def _with_store_of(old: RolloutSettings, new: RolloutSettings) -> RolloutSettings:
    return replace(new, store=old.store, namespace=old.namespace, lease_s=old.lease_s)


def _differences(section: str, old: ServerSettings, new: ServerSettings) -> Iterator[str]:
    for field in fields(old):
        one, other = getattr(old, field.name), getattr(new, field.name)
        if isinstance(one, Address) and isinstance(other, Address):
            yield from _addresses(section, one, other)
        elif one != other:
            yield f"{section}.{_KEYS.get(field.name, field.name)}"


def _addresses(section: str, old: Address, new: Address) -> Iterator[str]:
    if old.host != new.host:
        yield f"{section}.address"
    if old.port != new.port:
        yield f"{section}.port"
