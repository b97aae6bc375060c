"""Content codings: a compressed body to the JSON in it, never beyond a limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from ext_proc.core.errors import Reason

try:
    import brotli
except ImportError:  # extra `compression`
    brotli = None
try:
    import zstandard
except ImportError:  # extra `compression`
    zstandard = None  # type: ignore[assignment]


def decode(body: bytes, encoding: str, limit_bytes: int) -> bytes | Reason:
    """Undo one `content-encoding`.

    Errors: ENCODING_UNSUPPORTED for a coding that this installation cannot undo (a list of several
    among them), BODY_UNREADABLE for bytes that are not what they say, BODY_TOO_LARGE past the limit.
    """
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    decoder = _DECODERS.get(coding)
    if decoder is None:
        return Reason.ENCODING_UNSUPPORTED
    try:
        decoded = decoder(body, limit_bytes)
    except _Damaged:
        return Reason.BODY_UNREADABLE
    return Reason.BODY_TOO_LARGE if len(decoded) > limit_bytes else decoded


class _Damaged(Exception):
    """The bytes end early or are not in this coding."""


def _gunzip(body: bytes, limit_bytes: int) -> bytes:
    return _inflate(body, limit_bytes, zlib.MAX_WBITS | 16)


def _undeflate(body: bytes, limit_bytes: int) -> bytes:
    # RFC 9110, 8.4.1.2: "deflate" is the zlib format, yet some clients send the bare stream.
    try:
        return _inflate(body, limit_bytes, zlib.MAX_WBITS)
    except _Damaged:
        return _inflate(body, limit_bytes, -zlib.MAX_WBITS)


def _inflate(body: bytes, limit_bytes: int, window_bits: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    try:
        decoded = inflater.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise _Damaged from error
    if not inflater.eof and len(decoded) <= limit_bytes:
        raise _Damaged
    return decoded


def _unbrotli(body: bytes, limit_bytes: int) -> bytes:
    decompressor = brotli.Decompressor()
    try:
        decoded: bytes = decompressor.process(body, output_buffer_limit=limit_bytes + 1)
        while not decompressor.is_finished() and len(decoded) <= limit_bytes:
            more = decompressor.process(b"", output_buffer_limit=limit_bytes + 1 - len(decoded))
            if not more:
                raise _Damaged
            decoded += more
    except brotli.error as error:
        raise _Damaged from error
    return decoded


def _unzstd(body: bytes, limit_bytes: int) -> bytes:
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(body)
    try:
        decoded: bytes = reader.read(limit_bytes + 1)
        # -1 when the frame does not say; its reader takes an early end for the end.
        promised: int = zstandard.frame_content_size(body)
    except zstandard.ZstdError as error:
        raise _Damaged from error
    if len(decoded) < min(promised, limit_bytes):
        raise _Damaged
    return decoded


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _undeflate,
}
if brotli is not None:
    _DECODERS["br"] = _unbrotli
if zstandard is not None:
    _DECODERS["zstd"] = _unzstd
