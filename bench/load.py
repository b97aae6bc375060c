"""A load generator: HTTP/1.1 keep-alive connections, each sending its next request when answered.

Written for measuring a proxy on two cores: it reads only as much of an answer as it needs to find its
end, so that it costs a fraction of what a client library does.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from itertools import cycle


@dataclass
class Result:
    """What one run saw. `latencies_s` holds every request of the counted time."""

    seconds: float
    errors: int = 0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.latencies_s) / self.seconds

    def quantile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


def post(path: str, body: bytes) -> bytes:
    """One request, ready to send."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer client\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def run(port: int, requests: list[bytes], expected: bytes, connections: int, seconds: float) -> Result:
    """Send the requests round robin over so many connections for so long.

    An answer that is no 200, or whose head lacks `expected` (in lower case), is an error: a figure for
    a path that was not taken would be a lie.
    """
    result = Result(seconds)
    started = time.perf_counter()
    workers = []
    for index in range(connections):
        # Each connection begins elsewhere, so that no two send the same request at the same time.
        at = index * len(requests) // connections
        turned = requests[at:] + requests[:at]
        workers.append(_connection(port, turned, expected, started + seconds, result))
    await asyncio.gather(*workers)
    result.seconds = time.perf_counter() - started
    return result


async def _connection(
    port: int, requests: list[bytes], expected: bytes, until: float, result: Result
) -> None:
    endless = cycle(requests)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while (sent := time.perf_counter()) < until:
            writer.write(next(endless))
            if await _is_ok(reader, expected):
                result.latencies_s.append(time.perf_counter() - sent)
            else:
                result.errors += 1
    finally:
        writer.close()


async def _is_ok(reader: asyncio.StreamReader, expected: bytes) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    at = head.index(b"content-length:") + len(b"content-length:")
    await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
    return head.startswith(b"http/1.1 200") and expected in head
