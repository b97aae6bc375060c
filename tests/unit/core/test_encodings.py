"""Compressed bodies: what is undone, what is damaged, and what would be too much."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from ext_proc.core.encodings import decode
from ext_proc.core.errors import Reason

BODY = b'{"model":"gpt","messages":[]}' * 20
LIMIT = 1 << 20
BOMB_BYTES = 50 << 20


def deflate_bare(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def zstd_streamed(data: bytes) -> bytes:
    """A frame that does not say how long its content is."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", deflate_bare),
    ("br", brotli.compress),
    ("zstd", zstd),
    ("zstd", zstd_streamed),
]
each_coding = pytest.mark.parametrize(("encoding", "compress"), CODINGS)


@each_coding
def test_each_coding_is_undone(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    assert decode(compress(BODY), encoding, LIMIT) == BODY
    assert decode(compress(BODY), f" {encoding.upper()} ", LIMIT) == BODY


@each_coding
def test_a_body_of_exactly_the_limit_is_not_too_large(
    encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    assert decode(compress(BODY), encoding, len(BODY)) == BODY
    assert decode(compress(BODY), encoding, len(BODY) - 1) is Reason.BODY_TOO_LARGE


@each_coding
def test_a_bomb_is_given_up_at_the_limit(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    assert decode(compress(bytes(BOMB_BYTES)), encoding, LIMIT) is Reason.BODY_TOO_LARGE


@each_coding
def test_a_body_that_ends_early_is_damaged(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    whole = compress(BODY)
    for length in (1, len(whole) // 2, len(whole) - 5):
        assert decode(whole[:length], encoding, LIMIT) is Reason.BODY_UNREADABLE


@each_coding
def test_plain_json_that_claims_a_coding_is_damaged(
    encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    assert decode(BODY, encoding, LIMIT) is Reason.BODY_UNREADABLE


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_members_that_follow_each_other_belong_together(compress: Callable[[bytes], bytes]) -> None:
    encoding = "gzip" if compress is gzip.compress else "zstd"
    assert decode(compress(BODY[:7]) + compress(BODY[7:]), encoding, LIMIT) == BODY


def test_members_together_are_bounded_in_number_and_size() -> None:
    assert decode(gzip.compress(b"") * 16, "gzip", LIMIT) == b""
    assert decode(gzip.compress(b"") * 17, "gzip", LIMIT) is Reason.BODY_UNREADABLE
    assert decode(gzip.compress(BODY) * 2, "gzip", len(BODY)) is Reason.BODY_TOO_LARGE


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_stands_behind_the_end_is_damage(encoding: str) -> None:
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    assert decode(compress(BODY) + b"x", encoding, LIMIT) is Reason.BODY_UNREADABLE


def test_a_zstd_window_larger_than_the_content_coding_allows_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=25, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    assert decode(compressor.compress(BODY) + compressor.flush(), "zstd", LIMIT) is Reason.BODY_UNREADABLE


@pytest.mark.parametrize("encoding", ["gzip, br", "gzip,gzip", "compress", "exotic", "identity, gzip"])
def test_other_codings_and_several_at_once_are_not_undone(encoding: str) -> None:
    assert decode(BODY, encoding, LIMIT) is Reason.ENCODING_UNSUPPORTED


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_no_coding_leaves_the_body_as_it_is(encoding: str) -> None:
    assert decode(BODY, encoding, LIMIT) is BODY


def test_an_empty_body_is_in_any_coding() -> None:
    assert decode(b"", "exotic", LIMIT) == b""
