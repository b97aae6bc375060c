"""What a request costs beside an echo that does nothing: a ratio of CPU, whatever the machine."""

from __future__ import annotations

from typing import Any

from bench import in_memory, over_grpc

AT_MOST = 2.0
"""CPU of a pinned request, client and gRPC included, by that of the echo. Measured: 1.2 to 1.35, also on a
machine that was busy ten times over. To reach this, the server's own code must take four times as much."""

ROUNDS, REQUESTS = 6, 80
"""Of which the least counts: whatever disturbs a round makes it dearer."""


async def cost(handler: over_grpc.Handler) -> float:
    """CPU of the handler by that of the echo."""
    ours_s, bare_s = await over_grpc.cost(handler, "pinned", REQUESTS, ROUNDS)
    return ours_s / bare_s


async def test_a_pinned_request_costs_little_more_than_grpc_itself() -> None:
    assert await cost((await in_memory.servicer()).process) < AT_MOST


async def test_a_servicer_that_does_its_work_many_times_would_be_noticed() -> None:
    process = (await in_memory.servicer()).process

    async def wasteful(request: Any, context: Any) -> None:
        await in_memory.serve(process, "pinned", 20)
        await process(request, context)

    assert await cost(wasteful) > AT_MOST
