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

_MAX_MEMBERS = 16
"""How many gzip members a body may have. Each costs a copy of what follows it."""

_ZSTD_WINDOW_BYTES = 8 << 20
"""What a frame may make its decoder keep. Source: RFC 9659, 3: as a content coding, at most 8 MB."""


def decode(body: bytes, encoding: str, limit_bytes: int) -> bytes | Reason:
    """Undo one `content-encoding`.

    Errors: ENCODING_UNSUPPORTED for a coding that this installation cannot undo (a list of several
    among them), BODY_UNREADABLE for bytes that are not what they say, BODY_TOO_LARGE past the limit.
    """
    coding = encoding.strip().lower()
    if not body or coding in ("", "identity"):
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
    # RFC 1952, 2.2: members follow each other, and their contents belong together.
    decoded = b""
    for _ in range(_MAX_MEMBERS):
        more, body = _inflate(body, limit_bytes - len(decoded), zlib.MAX_WBITS | 16)
        decoded += more
        if not body or len(decoded) > limit_bytes:
            return decoded
    raise _Damaged


def _undeflate(body: bytes, limit_bytes: int) -> bytes:
    # RFC 9110, 8.4.1.2: "deflate" is the zlib format, yet some clients send the bare stream.
    try:
        decoded, rest = _inflate(body, limit_bytes, zlib.MAX_WBITS)
    except _Damaged:
        decoded, rest = _inflate(body, limit_bytes, -zlib.MAX_WBITS)
    if rest:
        raise _Damaged
    return decoded


def _inflate(body: bytes, limit_bytes: int, window_bits: int) -> tuple[bytes, bytes]:
    """The contents of one stream, up to a byte past the limit, and what stands behind it."""
    inflater = zlib.decompressobj(window_bits)
    try:
        decoded = inflater.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise _Damaged from error
    if not inflater.eof and len(decoded) <= limit_bytes:
        raise _Damaged
    return decoded, inflater.unused_data


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
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    try:
        # RFC 8878, 3: frames follow each other, and their contents belong together.
        decoded: bytes = decompressor.stream_reader(body, read_across_frames=True).read(limit_bytes + 1)
        # -1 when the frame does not say; its reader takes an early end for the end.
        promised: int = zstandard.frame_content_size(body)
    except zstandard.ZstdError as error:
        raise _Damaged from error
    if not decoded or len(decoded) < min(promised, limit_bytes):
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
