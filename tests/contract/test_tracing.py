"""A span per decision: whose child it is, what is in it and what is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ext_proc.core.settings import TracingSettings
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry
from ext_proc.telemetry.tracing import Tracing
from tests.contract.test_process import BODY, SNAPSHOT, FakeAsker, FakeContext, body, headers

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SETTINGS = TracingSettings("http://127.0.0.1:1", 1.0)


async def spans_of(
    *metadata: tuple[str, str], settings: TracingSettings = SETTINGS, data: bytes = BODY, **given: str
) -> list[Any]:
    exporter, telemetry = InMemorySpanExporter(), Telemetry()
    tracing = Tracing(settings, exporter)
    telemetry.trace(tracing)
    servicer = Servicer(lambda: Live(SNAPSHOT, FakeAsker(), 1 << 20), telemetry)
    await servicer.process(None, FakeContext([headers(**given), body(data)], metadata))
    # The spans that wait are exported, then the exporter takes no more.
    tracing.close()
    return list(exporter.get_finished_spans())


async def test_it_is_the_child_of_the_clients_span() -> None:
    (span,) = await spans_of(traceparent=f"00-{TRACE}-{SPAN}-01")
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == SPAN


async def test_envoys_own_span_comes_before_the_clients() -> None:
    envoys = "c" * 16
    (span,) = await spans_of(("traceparent", f"00-{TRACE}-{envoys}-01"), traceparent=f"00-{TRACE}-{SPAN}-01")
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == envoys


@pytest.mark.parametrize(
    ("header", "sample", "spans"),
    [
        (f"00-{TRACE}-{SPAN}-01", 0.0, 1),
        (f"00-{TRACE}-{SPAN}-00", 1.0, 0),
        ("", 1.0, 1),
        ("", 0.0, 0),
        ("nonsense", 1.0, 1),
    ],
)
async def test_sampling_follows_the_parent_and_else_the_file(header: str, sample: float, spans: int) -> None:
    given = {"traceparent": header} if header else {}
    assert len(await spans_of(settings=replace(SETTINGS, sample=sample), **given)) == spans


async def test_it_tells_of_the_decision_and_nothing_of_the_request() -> None:
    (span,) = await spans_of(x_arch_session="a-session", x_request_id="an-id")
    attributes = dict(span.attributes)
    assert attributes.pop("arch.router.duration_s") >= 0
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "large",
        "arch.policy": "code",
        "arch.target": "openai/large",
        "arch.arm": "baseline",
        "arch.reason": "policy",
        "arch.fallback": False,
        "arch.cluster": "large-cluster",
        "http.request.body.size": len(BODY),
    }
    told = span.to_json()
    assert not [text for text in ("pl4nted", "a-session", "s3cret", "gpt") if text in told]


async def test_a_request_without_a_body_to_read_has_one_too() -> None:
    (span,) = await spans_of(data=b"no json pl4nted")
    assert dict(span.attributes)["arch.fallback"] is True
    assert "pl4nted" not in span.to_json()
