"""The section `routing`: who decides, how sure it must be, and what is kept of decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ext_proc.config.document import Report
from ext_proc.config.draft import Draft
from ext_proc.config.routers import build_router_settings
from ext_proc.core.settings import MemorySettings, RecordSettings, RouterSettings, ShadowRouterSettings
from ext_proc.core.types import Confidence

DEADLINE_MARGIN_S = 0.02
"""What is left of Envoy's message timeout when the router is late, to answer with the default target."""


def build_router(draft: Draft, environ: Mapping[str, str], report: Report) -> RouterSettings:
    """The router that decides."""
    routing = draft.config.routing
    settings = build_router_settings(
        draft, routing.router, ("routing", "router"), routing.deadline, environ, report
    )
    if settings.causal_lm is not None:
        _warn_of_the_usual_deadline(draft, report)
    return replace(settings, cache=MemorySettings(routing.cache.size, routing.cache.ttl))


def _warn_of_the_usual_deadline(draft: Draft, report: Report) -> None:
    """The default is meant for routers that answer in milliseconds."""
    if draft.was_written(("routing", "deadline")) or draft.is_lost(("routing", "deadline")):
        return
    usual = _ms(draft.config.routing.deadline)
    text = f"a language model on a CPU takes longer than the usual deadline of {usual}"
    hint = 'write "deadline: 5s" and an envoy.message_timeout of 6s, or on a GPU the deadline that you mean'
    report.add(draft.document.mark(("routing", "router"), of_key=True), text, hint, is_warning=True)


def build_shadow_router(
    draft: Draft, environ: Mapping[str, str], report: Report
) -> ShadowRouterSettings | None:
    """The router that is asked as well. It has no cache: what it costs is to be seen."""
    section = draft.config.routing.shadow_router
    if section is None:
        return None
    path = ("routing", "shadow_router")
    settings = build_router_settings(draft, section, path, section.deadline, environ, report)
    return ShadowRouterSettings(settings, section.percent)


def build_confidence(draft: Draft) -> Confidence:
    section = draft.config.routing.confidence
    return Confidence(section.threshold, section.margin)


def build_sessions(draft: Draft) -> MemorySettings:
    section = draft.config.affinity.memory
    return MemorySettings(section.size, section.ttl)


def build_record(draft: Draft) -> RecordSettings | None:
    section = draft.config.routing.record
    return None if section is None else RecordSettings(section.path, section.redact, section.max_size)


def check_deadline(draft: Draft, report: Report) -> None:
    """Report a deadline that Envoy's own would cut short."""
    routing, timeout = draft.config.routing, draft.config.envoy.message_timeout
    deadline_path, timeout_path = ("routing", "deadline"), ("envoy", "message_timeout")
    latest = timeout - DEADLINE_MARGIN_S
    # Rounded, because 0.48 + 0.02 is more than 0.5 in binary.
    is_late = round(routing.deadline - latest, 6) > 0
    if is_late and not draft.is_lost(deadline_path) and not draft.is_lost(timeout_path):
        report.add(
            draft.document.mark(deadline_path if draft.was_written(deadline_path) else timeout_path),
            f"the router's deadline of {_ms(routing.deadline)} does not fit in Envoy's message timeout"
            f" of {_ms(timeout)}",
            (f"write a deadline of at most {_ms(latest)}, or " if latest >= 0.001 else "write ")
            + f"an envoy.message_timeout of at least {_ms(routing.deadline + DEADLINE_MARGIN_S)}",
        )


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000, 3):g}ms"
