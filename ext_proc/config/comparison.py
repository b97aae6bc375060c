"""The section `comparison`: how the answers of primaries and copies are compared."""

from __future__ import annotations

from ext_proc.config.catalog import Catalog
from ext_proc.config.document import Path, Report, shown
from ext_proc.config.draft import Draft
from ext_proc.core.settings import ComparisonSettings, JudgeSettings, SamplesSettings

_JUDGE: Path = ("comparison", "judge")


def build_comparison(draft: Draft, catalog: Catalog, report: Report) -> ComparisonSettings:
    """Resolve the section, reporting a judge that cannot be asked."""
    section = draft.config.comparison
    samples = section.samples
    return ComparisonSettings(
        pair_timeout_s=section.pair_timeout,
        max_pairs=section.max_pairs,
        max_text_bytes=section.max_text,
        judge=_judge(draft, catalog, report),
        samples=SamplesSettings(samples.path, samples.redact, samples.max_size) if samples else None,
    )


def _judge(draft: Draft, catalog: Catalog, report: Report) -> JudgeSettings | None:
    """The judge is one of the providers, asked directly and not through Envoy, so its host must be known."""
    written = draft.config.comparison.judge
    if written is None:
        return None
    target = catalog.find(written.model, (*_JUDGE, "model"), draft, report)
    if target is None:
        return None
    upstream = catalog.upstreams.get(target.cluster)
    if upstream is None or target.authority is None:
        text = f'nothing says where the judge "{shown(written.model)}" is served'
        report.add(draft.document.mark((*_JUDGE, "model")), text, 'write a "base_url" for that provider')
        return None
    scheme = "https" if upstream.tls else "http"
    return JudgeSettings(
        url=f"{scheme}://{target.authority}{target.path_prefix or '/v1'}/chat/completions",
        model=target.model,
        credential=target.credential,
        timeout_s=written.timeout,
        max_concurrent=written.max_concurrent,
        percent_per_10k=written.percent,
    )
