"""What the file says of going on to the next target, and what of it cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ext_proc.config.document import Path, Report, shown
from ext_proc.config.draft import Draft
from ext_proc.config.schema import Failover, Preference
from ext_proc.config.values import SERVER_ERRORS
from ext_proc.core.types import Arm, Retry, Target


def retry_of(*written: Failover) -> Retry:
    """When to go on to the next target: later sections override earlier ones."""
    retry = Retry()
    for section in written:
        if section.statuses is not None:
            statuses = sorted({status for status in section.statuses if isinstance(status, int)})
            retry = replace(retry, statuses=tuple(statuses), server_errors=SERVER_ERRORS in section.statuses)
        ejection = section.ejection
        changes = {
            "per_try_timeout_s": section.per_try_timeout,
            "attempts": section.attempts,
            "ejection_failures": ejection.failures,
            "ejection_s": ejection.time,
        }
        given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
        retry = replace(retry, **given)
    return retry


def check_chain(
    draft: Draft, arms: tuple[Arm, ...], fallbacks: tuple[Target, ...], path: Path, report: Report
) -> None:
    """Warn of targets that Envoy cannot fail over from or to."""
    if not fallbacks:
        return
    mark = draft.document.mark(path)
    for target in (arm.target for arm in arms):
        if not target.has_address:
            text = f'nothing follows "{shown(target.name)}" when it fails: only the mesh knows its hosts'
            report.add(mark, text, "write its base_url", is_warning=True)
    for target in fallbacks:
        if not target.has_address:
            text = f'"{shown(target.name)}" cannot be a fallback: only the mesh knows its hosts'
            report.add(mark, text, "write its base_url", is_warning=True)
        elif target.passthrough_auth:
            text = f'"{shown(target.name)}" cannot be a fallback: the client\'s credential is gone by then'
            report.add(mark, text, "give it an access_key, or rank it first", is_warning=True)


def check_split(
    draft: Draft, preference: Preference, arms: tuple[Arm, ...], path: Path, report: Report
) -> None:
    """What Envoy cannot split: it picks the arm when the request is already written for one of them."""
    own = (*path, "split")
    document = draft.document
    mark = document.mark(own if draft.was_written(own) else path)
    hint = 'write "split: ext_proc"'
    if preference.rollout is not None:
        report.add(mark, "a rollout moves weights that this server holds, and Envoy splits this policy", hint)
    for target in (arm.target for arm in arms):
        if not target.has_address:
            text = f'Envoy cannot split a policy over "{shown(target.name)}": only the mesh knows its hosts'
            report.add(mark, text, f"write its base_url, or {hint.removeprefix('write ')}")
        elif target.passthrough_auth:
            text = f'Envoy cannot split a policy over "{shown(target.name)}", which passes on clients\' keys'
            report.add(mark, text, hint)
