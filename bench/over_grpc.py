"""The servicer behind real gRPC in one process with its client, against an echo that does nothing else.

The client is the same for both, so its share of the CPU cancels out of what is compared.

    python -m bench.over_grpc
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import uvloop

from bench.in_memory import KINDS, messages, servicer
from ext_proc.server import wire
from ext_proc.server.grpc_server import OPTIONS
from ext_proc.telemetry import log

Handler = Callable[[Any, Any], Awaitable[None]]


async def echo(_: Any, context: Any) -> None:
    """Read what comes, answer each message with a prebuilt one."""
    answer = wire.AWAIT_BODY
    while await context.read() is not grpc.aio.EOF:
        await context.write(answer)


@asynccontextmanager
async def called(handler: Handler, options: Sequence[tuple[str, Any]] = OPTIONS) -> AsyncIterator[Any]:
    """A client's method that reaches the handler over a socket of its own."""
    server = grpc.aio.server(options=list(options))
    method = grpc.stream_stream_rpc_method_handler(
        handler, request_deserializer=wire.deserialize, response_serializer=None
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD: method}),)
    )
    with TemporaryDirectory() as folder:
        address = f"unix:{Path(folder) / 'socket'}"
        server.add_insecure_port(address)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                yield channel.stream_stream(f"/{wire.SERVICE}/{wire.METHOD}")
        finally:
            await server.stop(None)


async def spent(method: Any, kind: str, requests: int) -> float:
    """CPU seconds of this process for so many streams, one after the other."""
    sent = messages(KINDS[kind])
    started = time.process_time()
    for _ in range(requests):
        call = method()
        for message in sent:
            await call.write(message)
            await call.read()
        await call.done_writing()
        await call.code()
    return time.process_time() - started


async def cost(handler: Handler, kind: str, requests: int, rounds: int) -> tuple[float, float]:
    """CPU seconds per request of the handler and of the echo, each the least of the rounds, taken in turn."""
    async with called(handler) as ours, called(echo) as bare:
        await spent(ours, kind, requests)
        await spent(bare, kind, requests)
        pairs = [
            (await spent(ours, kind, requests), await spent(bare, kind, requests)) for _ in range(rounds)
        ]
    return min(one for one, _ in pairs) / requests, min(other for _, other in pairs) / requests


async def _main(requests: int, rounds: int) -> None:
    log.configure(as_json=False, level="ERROR")
    process = (await servicer()).process
    for kind in KINDS:
        ours_s, bare_s = await cost(process, kind, requests, rounds)
        print(f"{kind}: {1e6 * ours_s:.0f} µs of CPU, echo {1e6 * bare_s:.0f} µs: {ours_s / bare_s:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.over_grpc", description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(arguments.requests, arguments.rounds))
