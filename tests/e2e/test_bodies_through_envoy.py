"""What a body may be like on its way: any bytes, any size, any framing, readable or not."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib

import brotli
import httpx2
import pytest
import zstandard

from tests.support.bodies import answer_to_trailers, in_pieces, nothing_stays_of_whoever_leaves_in
from tests.support.http2 import Http2Connection
from tests.support.mesh import (
    CLIENT_HEADERS,
    CLIENT_KEY,
    CODING,
    LIMIT_S,
    PROVIDER_KEYS,
    Mesh,
    chat,
    eventually,
    lines_of,
    no_secret_in,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

ODD = (
    b' \r\n{ "messages" :[ {"role":"user",\t"content": "write a function in code \\u00e9 \xc3\xa9 \\/ "} ] ,\n'  # noqa: E501
    b'"seed":123456789012345678901234567890, "temperature": 1.0e+00,"top_p":0.30000000000000004, "x":1, "x":2,\n'  # noqa: E501
    b'"metadata":{"model" : "not this one", "z":{}} , "model" : "whatever" ,"stop":["\\n", "\\"model\\": 1"]  }\n '  # noqa: E501
)

UNREADABLE = {
    "empty": (b"", "body_empty"),
    "blank": (b" \r\n ", "body_empty"),
    "cut off": (b'{"model": "x", "messages": [', "body_unreadable"),
    "two documents": (b"{}{}", "body_unreadable"),
    "a list": (b'[{"role": "user", "content": "code"}]', "body_unreadable"),
    "a string": (b'"code"', "body_unreadable"),
    "null": (b"null", "body_unreadable"),
    "NaN": (b'{"messages": [], "temperature": NaN}', "body_unreadable"),
    "no UTF-8": (b'{"messages": [{"role": "user", "content": "\xff"}]}', "body_unreadable"),
    "half a character": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "body_unreadable"),
    "bottomless": (b"[" * 100_000, "body_unreadable"),
    "messages of a wrong type": (b'{"model": "x", "messages": "code"}', "body_unreadable"),
    "a message of a wrong type": (b'{"model": "x", "messages": [7]}', "body_unreadable"),
    "a content of a wrong type": (
        b'{"model": "x", "messages": [{"role": "user", "content": 7}]}',
        "body_unreadable",
    ),
    "a model of a wrong type": (b'{"model": ["x"], "messages": []}', "body_unreadable"),
}

ENCODERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


async def test_every_byte_but_the_models_is_as_the_client_sent_it(mesh: Mesh) -> None:
    reply = await mesh.send(ODD)
    assert reply.reason == "policy"
    seen = mesh.only("coder")
    assert seen.body == ODD.replace(b'"whatever"', b'"coder"')
    assert int(seen.headers["content-length"]) == len(seen.body)


async def test_a_model_named_twice_is_replaced_twice(mesh: Mesh) -> None:
    body = b'{"model":"a","messages":[{"role":"user","content":"write code"}],"mod\\u0065l": "b"}'
    await mesh.send(body)
    assert mesh.only("coder").body == body.replace(b'"a"', b'"coder"').replace(b'"b"', b'"coder"')


async def test_a_request_without_a_model_gets_one(mesh: Mesh) -> None:
    await mesh.send(b'{"messages":[{"role":"user","content":"write code"}]}')
    assert mesh.only("coder").model == "coder"


@pytest.mark.parametrize(("body", "reason"), UNREADABLE.values(), ids=UNREADABLE)
async def test_what_cannot_be_read_goes_unchanged_to_the_default_and_says_why(
    mesh: Mesh, body: bytes, reason: str
) -> None:
    counted = await mesh.decisions(reason=reason, model="openai/gpt-4o-mini")
    reply = await mesh.send(body, headers=[("x-request-id", f"unreadable-{hash(body)}")])
    assert (reply.status, reply.reason, reply.model) == (200, reason, "openai/gpt-4o-mini")
    seen = mesh.only("openai")
    assert seen.body == body
    assert seen.headers.getall("authorization") == [f"Bearer {PROVIDER_KEYS['OPENAI_KEY']}"]
    assert no_secret_in(seen, CLIENT_KEY)
    assert await mesh.decisions(reason=reason, model="openai/gpt-4o-mini") == counted + 1
    request_id = seen.headers["x-request-id"]

    def is_logged() -> bool:
        lines = [line for line in lines_of(mesh.stack.server.log) if request_id in line]
        return any("WARNING" in line and reason in line for line in lines)

    await eventually(is_logged, "the warning")


async def test_a_post_without_any_body_goes_to_the_default(mesh: Mesh) -> None:
    reply = await mesh.send(None)
    assert (reply.status, reply.reason) == (200, "body_empty")
    assert mesh.only("openai").body == b""


@pytest.mark.parametrize("encoding", ENCODERS)
async def test_a_compressed_body_is_routed_and_arrives_plain(mesh: Mesh, encoding: str) -> None:
    plain = json.dumps(chat(CODING)).encode()
    reply = await mesh.send(ENCODERS[encoding](plain), headers=[("content-encoding", encoding)])
    assert reply.reason == "policy"
    seen = mesh.only("coder")
    assert seen.body == plain.replace(b'"whatever"', b'"coder"')
    assert "content-encoding" not in seen.headers
    assert int(seen.headers["content-length"]) == len(seen.body)


@pytest.mark.parametrize("encoding", ENCODERS)
async def test_a_damaged_compressed_body_goes_unchanged_to_the_default(mesh: Mesh, encoding: str) -> None:
    damaged = ENCODERS[encoding](json.dumps(chat(CODING)).encode())[:-9]
    reply = await mesh.send(damaged, headers=[("content-encoding", encoding)])
    assert (reply.status, reply.reason) == (200, "body_unreadable")
    seen = mesh.only("openai")
    assert (seen.body, seen.headers["content-encoding"]) == (damaged, encoding)


@pytest.mark.parametrize("encoding", ["compress", "gzip, br", "nonsense"])
async def test_an_encoding_nobody_here_can_read_goes_unchanged_to_the_default(
    mesh: Mesh, encoding: str
) -> None:
    counted = await mesh.decisions(reason="encoding_unsupported")
    reply = await mesh.send(b"\x1f\x9d\x90", headers=[("content-encoding", encoding)])
    assert (reply.status, reply.reason) == (200, "encoding_unsupported")
    seen = mesh.only("openai")
    assert (seen.body, seen.headers["content-encoding"]) == (b"\x1f\x9d\x90", encoding)
    assert await mesh.decisions(reason="encoding_unsupported") == counted + 1


async def test_a_bomb_of_a_compressed_body_goes_unchanged_to_the_default(mesh: Mesh) -> None:
    bomb = gzip.compress(bytes(mesh.stack.configuration.envoy.body_limit_bytes + 1), 9)
    reply = await mesh.send(bomb, headers=[("content-encoding", "gzip")])
    assert (reply.status, reply.reason) == (200, "body_too_large")
    assert mesh.only("openai").body == bomb


async def test_a_chunked_body_is_routed(mesh: Mesh) -> None:
    plain = json.dumps(chat(CODING)).encode()

    reply = await mesh.send(in_pieces(plain, 7))
    assert (reply.status, reply.reason) == (200, "policy")
    assert mesh.only("coder").body == plain.replace(b'"whatever"', b'"coder"')


async def test_a_chunked_body_with_trailers_is_routed(mesh: Mesh) -> None:
    plain = json.dumps(chat(CODING)).encode()
    answer = await answer_to_trailers(mesh, plain)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"x-arch-reason: policy\r\n" in answer
    assert mesh.only("coder").body == plain.replace(b'"whatever"', b'"coder"')


async def test_a_client_that_waits_for_continue_gets_it(mesh: Mesh) -> None:
    reply = await mesh.send(chat(CODING), expect100=True)
    assert (reply.status, reply.reason) == (200, "policy")


async def test_an_http2_client_is_served_alike(mesh: Mesh) -> None:
    async with httpx2.AsyncClient(http1=False, http2=True, timeout=LIMIT_S) as client:
        answers = await asyncio.gather(
            *(
                client.post(
                    f"{mesh.stack.url}/v1/chat/completions", json=chat(CODING), headers=CLIENT_HEADERS
                )
                for _ in range(10)
            )
        )
    assert {(answer.http_version, answer.status_code) for answer in answers} == {("HTTP/2", 200)}
    assert {answer.headers["x-arch-model"] for answer in answers} == {"vllm/coder"}
    assert [seen.model for seen in mesh.providers["coder"].seen] == ["coder"] * 10
    assert all(no_secret_in(seen, CLIENT_KEY) for seen in mesh.providers["coder"].seen)


async def test_an_http2_body_with_trailers_is_routed(mesh: Mesh) -> None:
    host, port = mesh.stack.url.removeprefix("http://").split(":")
    connection = Http2Connection(host, int(port), "x-arch-reason")
    await connection.open()
    try:
        path = [(":method", "POST"), (":scheme", "http"), (":path", "/v1/chat/completions")]
        stream = await connection.begin([*path, (":authority", host), ("content-type", "application/json")])
        plain = json.dumps(chat(CODING)).encode()
        await connection.end(stream, plain, trailers=[("x-note", "done")])
        await eventually(lambda: connection.answered or connection.reset, "an answer")
    finally:
        await connection.close()
    assert connection.answered == {"200 policy": 1}
    assert mesh.only("coder").body == plain.replace(b'"whatever"', b'"coder"')


@pytest.mark.parametrize("size", [2 << 20, 20 << 20], ids=["2 MiB", "20 MiB"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_large_body_is_routed_whole(mesh: Mesh, size: int, framing: str) -> None:
    body = json.dumps(chat(CODING, padding="0123456789abcdef" * (size // 16))).encode()
    reply = await mesh.send(body if framing == "length" else in_pieces(body))
    assert (reply.status, reply.reason) == (200, "policy")
    assert mesh.only("coder").body == body.replace(b'"whatever"', b'"coder"', 1)


async def test_twenty_large_bodies_at_once_are_all_routed(mesh: Mesh) -> None:
    text = CODING + " and more of it" * (2 << 16)
    replies = await asyncio.gather(*(mesh.ask(text) for _ in range(20)))
    assert {(reply.status, reply.reason) for reply in replies} == {(200, "policy")}
    assert {len(seen.body) for seen in mesh.providers["coder"].seen} == {
        len(json.dumps(chat(text) | {"model": "coder"}))
    }


def body_of(size: int) -> bytes:
    """A chat completion of exactly so many bytes."""
    empty = len(json.dumps(chat(CODING, padding="")))
    return json.dumps(chat(CODING, padding="x" * (size - empty))).encode()


async def test_a_body_of_exactly_the_limit_is_routed_whole(mesh: Mesh) -> None:
    limit = mesh.stack.configuration.envoy.body_limit_bytes
    body = body_of(limit)
    assert len(body) == limit == 32 << 20
    reply = await mesh.send(body)
    assert (reply.status, reply.reason) == (200, "policy")
    assert mesh.only("coder").body == body.replace(b'"whatever"', b'"coder"', 1)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_over_the_limit_gets_413_from_envoy_and_reaches_nobody(mesh: Mesh, framing: str) -> None:
    """By one byte more than there is room for another model's name."""
    body = body_of(mesh.stack.configuration.envoy.buffer_limit_bytes + 1)
    reply = await mesh.send(body if framing == "length" else in_pieces(body))
    assert reply.status == 413
    assert mesh.seen() == {}
    assert (await mesh.ask()).reason == "policy"


async def test_a_client_that_goes_away_mid_body_leaves_nothing_behind(mesh: Mesh) -> None:
    await nothing_stays_of_whoever_leaves_in(mesh, b'{"model', 1000)
    assert mesh.only("coder")
