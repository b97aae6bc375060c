"""A draft to the configuration in force, with everything checked that holds between its parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, replace
from typing import Any

from ext_proc.config.affinity import read_tester_key
from ext_proc.config.catalog import DEFAULT, Catalog, build_catalog
from ext_proc.config.comparison import build_comparison
from ext_proc.config.document import Path, Report, shown
from ext_proc.config.draft import Draft
from ext_proc.config.environment import read_secret
from ext_proc.config.envoy import build_envoy
from ext_proc.config.failover import retry_of
from ext_proc.config.listening import build_server
from ext_proc.config.rollouts import build_rollouts, read_token
from ext_proc.config.routes import build_routes
from ext_proc.config.routing import (
    build_confidence,
    build_record,
    build_router,
    build_sessions,
    build_shadow_router,
    check_deadline,
)
from ext_proc.config.servers import check_servers
from ext_proc.config.telemetry import build_telemetry
from ext_proc.core.failover import chains_of
from ext_proc.core.settings import Address, Configuration, RouterSettings
from ext_proc.core.types import Shadow, Snapshot, Target

MIN_SALT_CHARS = 16

_SALT: Path = ("affinity", "salt")


def build(
    draft: Draft, environ: Mapping[str, str], random_salt: Callable[[], bytes], report: Report
) -> Configuration | None:
    """Resolve a draft, reporting every problem and warning. None when too little is left to build."""
    catalog = build_catalog(draft, environ, report)
    routes = build_routes(draft, catalog, report)
    aliases = _aliases(draft, catalog, report)
    on_failure = _on_failure(draft, catalog, report)
    check_deadline(draft, report)
    router = build_router(draft, environ, report)
    shadow_router = build_shadow_router(draft, environ, report)
    salt = _salt(draft, environ, report)
    envoy = build_envoy(draft, catalog.failure_variable, report)
    comparison = build_comparison(draft, catalog, report)
    telemetry = build_telemetry(draft, report)
    rollouts = build_rollouts(draft, routes, environ, report)
    admin_token = read_token(draft.config.admin.token, ("admin", "token"), draft, environ, report)
    admin = draft.config.admin
    check_servers(draft, report)
    if catalog.default is None or on_failure is None:
        return None
    snapshot = Snapshot(
        revision="",
        policies=tuple(route.policy for route in routes.values()),
        routes=routes,
        targets=catalog.targets,
        models=catalog.models,
        aliases=aliases,
        default=catalog.default,
        on_failure=on_failure,
        salt=random_salt() if salt is None else salt,
        chains=chains_of(routes.values()),
        retry=retry_of(draft.config.routing.failover),
        tester_key=read_tester_key(draft, environ, report),
        confidence=build_confidence(draft),
    )
    snapshot = replace(snapshot, revision=_digest(snapshot, router, salt))
    return Configuration(
        snapshot=snapshot,
        router=router,
        server=build_server(draft, environ, report),
        admin=Address(admin.address, admin.port),
        envoy=envoy,
        upstreams=tuple(catalog.upstreams.values()),
        comparison=comparison,
        sessions=build_sessions(draft),
        shadow_router=shadow_router,
        record=build_record(draft),
        rollouts=rollouts,
        admin_token=admin_token,
        telemetry=telemetry,
    )


def _aliases(draft: Draft, catalog: Catalog, report: Report) -> dict[str, Target]:
    aliases: dict[str, Target] = {}
    for name, alias in (draft.config.model_aliases or {}).items():
        path: Path = ("model_aliases", name)
        if name in catalog.targets:
            mark = draft.document.mark(path, of_key=True)
            report.add(mark, f'the alias "{shown(name)}" is also the name of a provider', "rename the alias")
        target = catalog.find(alias.target, (*path, "target"), draft, report)
        if target is not None:
            aliases[name] = target
    return aliases


def _on_failure(draft: Draft, catalog: Catalog, report: Report) -> Target | None:
    name = draft.config.routing.on_failure
    if name == DEFAULT:
        return catalog.default
    return catalog.find(name, ("routing", "on_failure"), draft, report)


def _salt(draft: Draft, environ: Mapping[str, str], report: Report) -> bytes | None:
    """The salt of the file; None when it has none."""
    document, written = draft.document, draft.config.affinity.salt
    if written is None:
        if not draft.is_lost(_SALT):
            text = "without affinity.salt, sessions change arms at a restart and differ between replicas"
            mark = document.mark(("affinity",), of_key=True)
            report.add(mark, text, 'write "affinity: {salt: $ARCH_SALT}"', is_warning=True)
        return None
    value = read_secret(written, environ, document, _SALT, report)
    if value is None or value.is_absent:
        return None
    if not value.text:
        report.add(document.mark(_SALT), '"salt" is empty', "set a long random text, or remove the key")
        return None
    if len(value.text) < MIN_SALT_CHARS:
        text = (
            f'"salt" has fewer than {MIN_SALT_CHARS} characters: a client could guess it and choose its arm'
        )
        report.add(
            document.mark(_SALT), text, "write e.g. the output of: openssl rand -hex 32", is_warning=True
        )
    # BLAKE2's key has at most 64 bytes; a salt may have any number.
    return hashlib.sha256(value.text.encode("utf-8", "surrogatepass")).digest()


def _digest(snapshot: Snapshot, router: RouterSettings, salt: bytes | None) -> str:
    """A short digest of everything that can change a decision.

    Keys are left out, since the digest is shown. A written salt counts, a random one does not, so that
    one file has one revision.
    """
    policies = [
        (
            astuple(route.policy),
            [(arm.name, arm.target.name, arm.weight_per_10k) for arm in route.arms],
            [(shadow.target.name, *_bounds(shadow)) for shadow in route.shadows],
            [target.name for target in route.fallbacks],
            (
                *astuple(route.retry),
                route.envoy_splits,
                route.sticky,
                sorted(route.always),
                sorted(route.never),
            ),
        )
        for route in snapshot.routes.values()
    ]
    everything = [
        [_described(target) for target in snapshot.targets.values()],
        policies,
        sorted((name, target.name) for name, target in snapshot.models.items()),
        sorted((name, target.name) for name, target in snapshot.aliases.items()),
        snapshot.default.name,
        snapshot.on_failure.name,
        _router_described(router),
        astuple(snapshot.confidence),
        hashlib.sha256(salt).hexdigest() if salt is not None else None,
    ]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:12]


def _bounds(shadow: Shadow) -> tuple[object, ...]:
    numbers = (shadow.percent_per_10k, shadow.max_concurrent, shadow.max_per_minute, shadow.max_body_bytes)
    return (*numbers, shadow.noise_floor)


def _router_described(router: RouterSettings) -> dict[str, object]:
    """All of its settings but the key."""
    described: dict[str, Any] = asdict(router)
    if described["endpoint"] is not None:
        del described["endpoint"]["credential"]
    return described


def _described(target: Target) -> tuple[object, ...]:
    header = target.credential.header if target.credential is not None else None
    place = (target.cluster, target.origin, target.authority, target.path_prefix)
    supports = target.supports
    can = (sorted(supports.dialects or ()), supports.images, supports.tools, supports.context_tokens)
    return (target.name, target.model, *place, header, target.passthrough_auth, can, target.has_address)
