"""Messages between the parent and a worker, over the socket pair that the worker was started with.

A frame is a length, an address, and so many bytes of JSON. Workers write to one another through the parent,
which looks at the address alone.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from typing import Any

import orjson

PARENT = 255
"""The address of the parent. Workers have their indices."""

EVERYBODY = 254
"""The address of all workers but the one that writes."""

MAX_FRAME_BYTES = 64 << 20
"""Far more than anything that is sent: a larger length is no length."""

MAX_WAITING_BYTES = 8 << 20
"""What may wait for a reader that does not read; beyond it, frames are dropped."""

HEAD = struct.Struct("!IB")


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes] | None:
    """The next address and content. None: the other side is gone."""
    try:
        length, address = HEAD.unpack(await reader.readexactly(HEAD.size))
        if length > MAX_FRAME_BYTES:
            return None
        return address, await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError):
        return None


def write_frame(writer: asyncio.StreamWriter, address: int, content: bytes) -> bool:
    """Hand a frame over. Never waits; False: the other side is gone, or does not read, or not so much."""
    transport = writer.transport
    is_full = transport.get_write_buffer_size() > MAX_WAITING_BYTES
    if transport.is_closing() or is_full or len(content) > MAX_FRAME_BYTES:
        return False
    writer.write(HEAD.pack(len(content), address) + content)
    return True


def pack(kind: str, **fields: Any) -> bytes:
    return orjson.dumps({"kind": kind, **fields})


def unpack(content: bytes) -> Mapping[str, Any]:
    message: Mapping[str, Any] = orjson.loads(content)
    return message
