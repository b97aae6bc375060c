"""The section `routing.router` to the settings of the router that it names."""

from __future__ import annotations

from collections.abc import Mapping

from ext_proc.config.document import Path, Report
from ext_proc.config.draft import Draft
from ext_proc.config.environment import read_secret
from ext_proc.config.schema import RouterSection
from ext_proc.core.prompt import BUDGET_TOKENS, Variant
from ext_proc.core.settings import CausalLmSettings, EndpointSettings, Guided, RouterSettings
from ext_proc.core.types import Credential, Secret

_PROMPTED = frozenset({"model", "prompt", "budget"})
_KEYS: Mapping[str, frozenset[str]] = {
    "embedded": frozenset({"threshold"}),
    "transformers": _PROMPTED | {"device", "dtype", "max_batch", "engine"},
    "openai": _PROMPTED | {"base_url", "access_key", "guided", "max_concurrent", "breaker", "fallback"},
}
"""What each type has besides `type` and `max_waiting`."""

MAX_BATCH = 8
MAX_CONCURRENT = 64
BREAKER_FAILURES = 5
BREAKER_PAUSE_S = 5.0


def build_router_settings(
    draft: Draft,
    section: RouterSection,
    path: Path,
    deadline_s: float,
    environ: Mapping[str, str],
    report: Report,
) -> RouterSettings:
    """Resolve one router's section, reporting keys of another type and what its own type lacks."""
    _report_strangers(draft, section, path, report)
    causal_lm = endpoint = None
    if section.type == "transformers":
        causal_lm = _causal_lm(draft, section, path, report)
    elif section.type == "openai":
        endpoint = _endpoint(draft, section, path, environ, report)
    return RouterSettings(
        type=section.type,
        deadline_s=deadline_s,
        threshold=section.threshold,
        max_waiting=section.max_waiting,
        causal_lm=causal_lm,
        endpoint=endpoint,
    )


def _report_strangers(draft: Draft, section: RouterSection, path: Path, report: Report) -> None:
    written = section.model_fields_set & RouterSection.model_fields.keys()
    for key in sorted(written - {"type", "max_waiting"} - _KEYS[section.type]):
        types = " or ".join(name for name, keys in _KEYS.items() if key in keys)
        text = f'"{key}" is no key of the router "{section.type}"'
        report.add(draft.document.mark((*path, key), of_key=True), text, f"remove it, or choose {types}")


def _causal_lm(draft: Draft, section: RouterSection, path: Path, report: Report) -> CausalLmSettings | None:
    model = _model(draft, section, path, "a folder, or a hub id such as katanemo/Arch-Router-1.5B", report)
    if model is None:
        return None
    return CausalLmSettings(
        model=model,
        prompt=Variant(section.prompt or Variant.ARCHGW),
        budget_tokens=section.budget or BUDGET_TOKENS,
        device=section.device or "auto",
        dtype=section.dtype or "auto",
        max_batch=section.max_batch or MAX_BATCH,
        engine=section.engine,
    )


def _endpoint(
    draft: Draft, section: RouterSection, path: Path, environ: Mapping[str, str], report: Report
) -> EndpointSettings | None:
    model = _model(draft, section, path, "the name that the server has for it", report)
    base_url = section.base_url
    if base_url is None and not draft.is_lost((*path, "base_url")):
        text = 'the router "openai" has no "base_url"'
        report.add(draft.document.mark(path), text, 'write e.g. "base_url: http://vllm:8000/v1"')
    credential = _credential(draft, section, path, environ, report)
    if model is None or base_url is None:
        return None
    scheme = "https" if base_url.tls else "http"
    breaker = section.breaker
    return EndpointSettings(
        url=f"{scheme}://{base_url.authority}{base_url.path or '/v1'}/chat/completions",
        model=model,
        credential=credential,
        prompt=Variant(section.prompt or Variant.ARCHGW),
        budget_tokens=section.budget or BUDGET_TOKENS,
        guided=Guided(section.guided or Guided.OFF),
        max_concurrent=section.max_concurrent or MAX_CONCURRENT,
        breaker_failures=breaker.failures if breaker else BREAKER_FAILURES,
        breaker_pause_s=breaker.pause if breaker else BREAKER_PAUSE_S,
        fallback=section.fallback,
    )


def _model(draft: Draft, section: RouterSection, path: Path, what: str, report: Report) -> str | None:
    if not section.model and not draft.is_lost((*path, "model")):
        text = f'the router "{section.type}" has no "model"'
        report.add(draft.document.mark(path), text, f"write {what}")
    return section.model or None


def _credential(
    draft: Draft, section: RouterSection, path: Path, environ: Mapping[str, str], report: Report
) -> Credential | None:
    if not section.access_key:
        return None
    value = read_secret(section.access_key, environ, draft.document, (*path, "access_key"), report)
    # Nothing but the real key is sent to an endpoint, which `explain` does ask.
    key = value.text.strip() if value is not None and not value.is_absent else ""
    if not key:
        return None
    if not (key.isascii() and key.isprintable()):
        mark = draft.document.mark((*path, "access_key"))
        report.add(mark, '"access_key" has characters that no header can carry', "check the key")
        return None
    return Credential("authorization", Secret(f"Bearer {key}"))
