"""The section `telemetry`: traces, and whether contents are logged."""

from __future__ import annotations

import importlib

from ext_proc.config.document import Report
from ext_proc.config.draft import Draft
from ext_proc.core.settings import TelemetrySettings, TracingSettings
from ext_proc.core.types import WHOLE_PER_10K

_ALSO_OF_OTHERS = "opentelemetry.proto"


def build_telemetry(draft: Draft, report: Report) -> TelemetrySettings:
    """Resolve the section, reporting what is not installed."""
    section = draft.config.telemetry
    if section.otlp is None:
        return TelemetrySettings(log_content=section.log_content)
    if (problem := _cannot_export()) is not None:
        report.add(draft.document.mark(("telemetry", "otlp"), of_key=True), *problem)
    url = section.otlp.endpoint
    host = f"[{url.host}]" if ":" in url.host else url.host
    endpoint = f"{'https' if url.tls else 'http'}://{host}:{url.port}"
    tracing = TracingSettings(endpoint, section.otlp.percent / WHOLE_PER_10K)
    return TelemetrySettings(tracing, section.log_content)


def _cannot_export() -> tuple[str, str] | None:
    """What is wrong with the exporter's packages, and what to do."""
    exporter = "opentelemetry.exporter.otlp.proto.grpc"
    try:
        importlib.import_module(f"{exporter}.trace_exporter")
    except ImportError as error:
        # xds-protos has old files of the same names: whichever is installed last has them.
        if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith(_ALSO_OF_OTHERS):
            return '"otlp" needs packages that are not installed', "pip install 'arch-ext-proc[otel]'"
        hint = "pip install --force-reinstall --no-deps opentelemetry-proto"
        return '"otlp" needs files of opentelemetry-proto that another package has replaced', hint
    return None
