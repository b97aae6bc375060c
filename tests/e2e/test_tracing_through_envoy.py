"""A decision's span reaches a real OTLP receiver, in the client's trace; bodies are logged if asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.support.mesh import CODING, CONFIGS, eventually, lines_of, running_mesh

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Keeps the spans that it gets."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.url = ""

    async def Export(self, request: Any, _: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    server, collector = grpc.aio.server(), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


async def test_a_decision_is_a_span_of_the_clients_trace(tmp_path: Path) -> None:
    config = tmp_path / "arch_config.yaml"
    async with collecting() as collector:
        text = (CONFIGS / "routers.yaml").read_text()
        config.write_text(
            f"{text}\nrouting: {{deadline: 20s}}\ntelemetry: {{otlp: {{endpoint: '{collector.url}'}}}}\n"
        )
        async with running_mesh(config, tmp_path, "openai", "coder", "anthropic") as mesh:
            body = {"model": "any", "messages": [{"role": "user", "content": CODING}]}
            reply = await mesh.send(body, headers=[("traceparent", f"00-{TRACE}-{SPAN}-01")])
            assert reply.policy == "code generation"
            await eventually(lambda: collector.spans, "a span came")
    (span,) = collector.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.name) == (TRACE, SPAN, "arch.decide")
    told = {pair.key: pair.value.string_value for pair in span.attributes}
    assert told["arch.policy"] == "code generation"
    assert told["gen_ai.request.model"] == "coder"
    assert CODING not in str(span)


async def test_a_collector_that_is_away_costs_no_request_and_bodies_are_logged_when_asked(
    tmp_path: Path,
) -> None:
    config = tmp_path / "arch_config.yaml"
    away = "{otlp: {endpoint: 'http://127.0.0.1:9'}, log_content: true}"
    config.write_text(
        f"{(CONFIGS / 'routers.yaml').read_text()}\nrouting: {{deadline: 20s}}\ntelemetry: {away}\n"
    )
    async with running_mesh(config, tmp_path, "openai", "coder", "anthropic") as mesh:
        assert (await mesh.ask("write a sorting function, quarzklee")).status == 200
        log = mesh.stack.server.log
        await eventually(lambda: "quarzklee" in log.read_text(), "the body was logged")
    lines = lines_of(log)
    begun = next(number for number, line in enumerate(lines) if " log_content " in line)
    assert begun < next(number for number, line in enumerate(lines) if "quarzklee" in line)
