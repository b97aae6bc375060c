"""Content codings undone piece by piece, for an answer that is looked at while it passes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Protocol

try:
    import brotli
except ImportError:  # extra `compression`
    brotli = None
try:
    import zstandard
except ImportError:  # extra `compression`
    zstandard = None  # type: ignore[assignment]

PIECE_BYTES = 64 << 10
"""About how much is unpacked at once: what comes out is used up before more is made."""

_ZSTD_WINDOW_BYTES = 8 << 20
"""What a frame may make its decoder keep. Source: RFC 9659, 3."""

_ZSTD_INPUT_BYTES = 256
"""zstandard gives all that its input makes, and 4 bytes can make 128 KiB: so it gets little at a time."""


class DamagedError(Exception):
    """The bytes are not in this coding."""


class Unpacker(Protocol):
    """Undoes one coding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The contents of the next bytes, in pieces. Errors: DamagedError."""


def unpacker(encoding: str) -> Unpacker | None:
    """What undoes a `content-encoding`; None for one that this installation cannot undo."""
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return _Plain()
    if coding in ("gzip", "x-gzip"):
        return _Zlib(zlib.MAX_WBITS | 16)
    if coding == "deflate":
        return _Zlib(zlib.MAX_WBITS)
    if coding == "br" and brotli is not None:
        return _Brotli()
    if coding == "zstd" and zstandard is not None:
        return _Zstd()
    return None


class _Plain:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._inflater = zlib.decompressobj(window_bits)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflater.eof:
                # RFC 1952, 2.2: another member may follow.
                self._inflater = zlib.decompressobj(self._window_bits)
            try:
                yield self._inflater.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise DamagedError from error
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail


class _Brotli:
    def __init__(self) -> None:
        self._decompressor: Any = brotli.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            piece = self._decompressor.process(data, output_buffer_limit=PIECE_BYTES)
            # It may accept more, and call itself finished, while it still has some to give.
            while piece or not self._decompressor.can_accept_more_data():
                yield piece
                piece = self._decompressor.process(b"", output_buffer_limit=PIECE_BYTES)
        except brotli.error as error:
            raise DamagedError from error


class _Zstd:
    def __init__(self) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._decompressor = decompressor.decompressobj(read_across_frames=True)

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            for start in range(0, len(data), _ZSTD_INPUT_BYTES):
                yield self._decompressor.decompress(data[start : start + _ZSTD_INPUT_BYTES])
        except zstandard.ZstdError as error:
            raise DamagedError from error
