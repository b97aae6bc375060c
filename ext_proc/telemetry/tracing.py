"""A span per decision, in the trace that Envoy began, sent by OTLP over gRPC from a thread of its own.

Needs the extra `otel`, which is imported only where a file asks for traces. Names, numbers and reasons are
in a span; never a text, a key or a client's own words.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ext_proc import __version__
from ext_proc.core.exchange import Decide
from ext_proc.core.settings import TracingSettings
from ext_proc.core.traceparent import Parent
from ext_proc.core.types import Dialect, Outcome

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

MAX_WAITING = 2_048
"""Spans that wait to be sent: a collector that is away costs these and no request."""
MAX_BATCH = 512
BATCH_S = 1.0
EXPORT_S = 5.0
"""How long one batch may take."""

SPAN = "arch.decide"
OPERATIONS = {
    Dialect.CHAT_COMPLETIONS: "chat",
    Dialect.RESPONSES: "chat",
    Dialect.MESSAGES: "chat",
    Dialect.COMPLETIONS: "text_completion",
    Dialect.EMBEDDINGS: "embeddings",
}
"""`gen_ai.operation.name`. Source: OpenTelemetry's semantic conventions for generative AI."""
PROVIDERS = {"mistral": "mistral_ai", "xai": "x_ai", "gemini": "gcp.gemini"}
"""`gen_ai.provider.name` where the convention's name is not the prefix that the file has."""


class TracingUnavailable(RuntimeError):
    """The file asks for traces and the extra is not installed."""


class Tracing:
    """Takes decisions on the event loop and never waits; what is too much is dropped."""

    def __init__(self, settings: TracingSettings, exporter: SpanExporter | None = None) -> None:
        """Errors: TracingUnavailable. `exporter`: instead of the one that sends."""
        try:
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
            from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415
        except ImportError:
            raise TracingUnavailable(
                "telemetry.otlp needs the extra: pip install 'arch-ext-proc[otel]'"
            ) from None
        resource = Resource({"service.name": "arch-ext-proc", "service.version": __version__})
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(settings.sample), resource=resource, shutdown_on_exit=False
        )
        self._processor = BatchSpanProcessor(
            exporter or _exporter(settings),
            max_queue_size=MAX_WAITING,
            max_export_batch_size=MAX_BATCH,
            schedule_delay_millis=BATCH_S * 1000,
            export_timeout_millis=EXPORT_S * 1000,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("arch-ext-proc", __version__)

    def decided(
        self, request: Decide, outcome: Outcome, parent: Parent | None, policy: str, target: str
    ) -> None:
        """One request was answered, just now. `policy` and `target` are bounded, as metrics' are."""
        ended = time.time_ns()
        span = self._tracer.start_span(
            SPAN,
            context=_context(parent),
            attributes=_attributes(request, outcome, policy, target),
            start_time=ended - round(outcome.total_s * 1e9),
        )
        span.end(ended)

    def close(self) -> None:
        """Send what waits, for a while. Blocks: not for the event loop."""
        self._processor.force_flush(round(EXPORT_S * 1000))
        self._provider.shutdown()


def _exporter(settings: TracingSettings) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(
        endpoint=settings.endpoint, insecure=settings.endpoint.startswith("http://"), timeout=EXPORT_S
    )


def _context(parent: Parent | None) -> Any:
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace import (  # noqa: PLC0415
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    if parent is None:
        return Context()
    found = SpanContext(
        parent.trace_id, parent.span_id, is_remote=True, trace_flags=TraceFlags(parent.flags & 1)
    )
    return set_span_in_context(NonRecordingSpan(found), Context())


def _attributes(
    request: Decide, outcome: Outcome, policy: str, name: str
) -> dict[str, str | int | float | bool]:
    decision = outcome.decision
    target = decision.target
    prefix = name.partition("/")[0]
    found: dict[str, str | int | float | bool | None] = {
        "gen_ai.operation.name": OPERATIONS[request.dialect],
        "gen_ai.provider.name": PROVIDERS.get(prefix, prefix),
        # An embedding's model is whatever its client wrote.
        "gen_ai.request.model": None if request.dialect is Dialect.EMBEDDINGS else target.model,
        "arch.policy": policy or None,
        "arch.target": name,
        "arch.arm": decision.arm,
        "arch.reason": decision.reason.value,
        "arch.fallback": decision.reason.is_fallback,
        "arch.cluster": target.cluster,
        "arch.shadow": decision.shadow.target.name if decision.shadow else None,
        "arch.router.duration_s": outcome.router_s,
        "http.request.body.size": len(request.body),
    }
    return {name: value for name, value in found.items() if value is not None}
