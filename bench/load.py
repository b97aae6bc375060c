"""A load generator: HTTP/1.1 keep-alive connections, each sending its next request when answered.

Written for measuring a proxy on two cores: it reads only as much of an answer as it needs to find its
end, so that it costs a fraction of what a client library does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle

STREAMED = b"accept: text/event-stream\r\n"
"""What the upstream knows by that an answer is to be a stream."""


@dataclass
class Result:
    """What one run saw. `latencies_s` holds every request of the counted time, `errors` what else came."""

    seconds: float
    errors: int = 0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.latencies_s) / self.seconds

    def quantile_ms(self, share: float) -> float:
        return quantile(self.latencies_s, share) * 1000


def quantile(values: list[float], share: float) -> float:
    """A quantile of values, NaN if there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def post(path: str, body: bytes, *, is_streamed: bool = False) -> bytes:
    """One request, ready to send."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer client\r\ncontent-length: {len(body)}\r\n"
    )
    return head.encode() + (STREAMED if is_streamed else b"") + b"\r\n" + body


async def run(port: int, requests: list[bytes], expected: bytes, connections: int, seconds: float) -> Result:
    """Send the requests round robin over so many connections for so long.

    An answer that is no 200, or whose head lacks `expected` (in lower case), is an error: a figure for
    a path that was not taken would be a lie.
    """
    result = Result(seconds)
    started = time.perf_counter()

    def told(latency_s: float | None) -> None:
        if latency_s is None:
            result.errors += 1
        else:
            result.latencies_s.append(latency_s)

    workers = []
    for index in range(connections):
        # Each connection begins elsewhere, so that no two send the same request at the same time.
        at = index * len(requests) // connections
        turned = requests[at:] + requests[:at]
        workers.append(
            connection(port, turned, expected, lambda: time.perf_counter() - started > seconds, told)
        )
    await asyncio.gather(*workers)
    result.seconds = time.perf_counter() - started
    return result


async def connection(
    port: int,
    requests: list[bytes],
    expected: bytes,
    is_over: Callable[[], bool],
    told: Callable[[float | None], None],
) -> None:
    """Ask one thing after the other, and tell how long each took in seconds, or None for a wrong answer.

    Errors: OSError and asyncio.IncompleteReadError when the other side breaks off.
    """
    endless = cycle(requests)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while not is_over():
            sent = time.perf_counter()
            writer.write(next(endless))
            is_right = await _is_right(reader, expected)
            told(time.perf_counter() - sent if is_right else None)
    finally:
        writer.close()


async def _is_right(reader: asyncio.StreamReader, expected: bytes) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    at = head.find(b"content-length:")
    if at >= 0:
        at += len(b"content-length:")
        await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
    else:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    return head.startswith(b"http/1.1 200") and expected in head
