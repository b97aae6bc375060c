"""What Envoy is told: where it listens, how long it waits, and how much of a body it holds."""

from __future__ import annotations

from ext_proc.config.document import Path, Report
from ext_proc.config.draft import Draft
from ext_proc.config.envoy_schema import REQUEST_TIMEOUT_S, ArchListener, ArchListeners, EnvoyListener
from ext_proc.core.settings import Address, EnvoySettings, ExtProcTls


def build_envoy(draft: Draft, failure_variable: str | None, report: Report) -> EnvoySettings:
    """Envoy's side. `failure_variable` has the key that Envoy sends where this server is not there."""
    envoy = draft.config.envoy
    found = _arch_listener(draft, report)
    listener: EnvoyListener | ArchListener = envoy.listener or EnvoyListener()
    timeout = envoy.request_timeout
    if found is not None:
        path, arch = found
        if draft.was_written(("envoy", "listener")):
            mark = draft.document.mark(path)
            report.add(mark, '"listeners" and "envoy.listener" say the same', "keep envoy.listener")
        if arch.timeout is not None and timeout is not None:
            mark = draft.document.mark((*path, "timeout"))
            report.add(
                mark, '"timeout" and "envoy.request_timeout" say the same', "keep envoy.request_timeout"
            )
        listener, timeout = arch, timeout or arch.timeout
    admin = envoy.admin
    if admin is not None and listener.port == admin.port != 0 and listener.address == admin.address:
        path = ("envoy", "admin", "port")
        mark = draft.document.mark(path if draft.was_written(path) else ("envoy", "listener", "port"))
        report.add(mark, f"Envoy's listener and admin both use port {admin.port}", "give one another port")
    _check_decision_window(draft, report)
    return EnvoySettings(
        listener=Address(listener.address, listener.port),
        admin=Address(admin.address, admin.port) if admin is not None else None,
        ext_proc_cluster=envoy.ext_proc_cluster,
        message_timeout_s=envoy.message_timeout,
        request_timeout_s=timeout or REQUEST_TIMEOUT_S,
        body_limit_bytes=envoy.body_limit,
        failure_credential_env=failure_variable,
        pass_cookies=envoy.pass_cookies,
        ext_proc_tls=_ext_proc_tls(draft),
        streams_bodies=envoy.body_mode == "streamed",
        decision_window_bytes=envoy.decision_window or envoy.body_limit,
    )


def _ext_proc_tls(draft: Draft) -> ExtProcTls:
    """Envoy's side of `server.tls`."""
    tls = draft.config.envoy.ext_proc_tls
    return ExtProcTls(tls.ca, tls.certificate, tls.key, tls.name, tls.sds)


def _check_decision_window(draft: Draft, report: Report) -> None:
    envoy, path = draft.config.envoy, ("envoy", "decision_window")
    if envoy.decision_window is None:
        return
    if envoy.body_mode == "buffered":
        problem, hint = '"decision_window" is for streamed bodies', "add body_mode: streamed, or leave it out"
    elif envoy.decision_window > envoy.body_limit:
        problem, hint = '"decision_window" is above "body_limit"', "raise body_limit as well"
    else:
        return
    report.add(draft.document.mark(path), problem, hint)


def _arch_listener(draft: Draft, report: Report) -> tuple[Path, ArchListener] | None:
    """The listener that an archgw or Plano file has for calls to models."""
    listeners = draft.config.listeners
    if isinstance(listeners, ArchListeners):
        found = listeners.egress_traffic
        return None if found is None else (("listeners", "egress_traffic"), found)
    models: list[tuple[Path, ArchListener]] = [
        (("listeners", index), entry)
        for index, entry in enumerate(listeners or [])
        if entry is not None and not draft.is_lost(("listeners", index, "type"))
    ]
    for path, _ in models[1:]:
        report.add(draft.document.mark(path), "a second listener for calls to models", "keep one of them")
    return models[0] if models else None
