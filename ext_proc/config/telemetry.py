"""The section `telemetry`: traces, and whether contents are logged."""

from __future__ import annotations

import importlib.util

from ext_proc.config.document import Report
from ext_proc.config.draft import Draft
from ext_proc.core.settings import TelemetrySettings, TracingSettings
from ext_proc.core.types import WHOLE_PER_10K


def build_telemetry(draft: Draft, report: Report) -> TelemetrySettings:
    """Resolve the section, reporting what is not installed."""
    section = draft.config.telemetry
    if section.otlp is None:
        return TelemetrySettings(log_content=section.log_content)
    if importlib.util.find_spec("opentelemetry.exporter.otlp.proto.grpc") is None:
        hint = "pip install 'arch-ext-proc[otel]'"
        mark = draft.document.mark(("telemetry", "otlp"), of_key=True)
        report.add(mark, '"otlp" needs packages that are not installed', hint)
    url = section.otlp.endpoint
    host = f"[{url.host}]" if ":" in url.host else url.host
    endpoint = f"{'https' if url.tls else 'http'}://{host}:{url.port}"
    tracing = TracingSettings(endpoint, section.otlp.percent / WHOLE_PER_10K)
    return TelemetrySettings(tracing, section.log_content)
