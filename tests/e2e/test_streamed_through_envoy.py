"""Bodies in pieces through Envoy: decided as whole ones up to the window, by their head above it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from demo.stand_in import Behaviour
from tests.support.bodies import answer_to_trailers, in_pieces, nothing_stays_of_whoever_leaves_in
from tests.support.mesh import (
    CLIENT_HEADERS,
    CLIENT_KEY,
    CODING,
    CONFIGS,
    LIMIT_S,
    PROVIDER_KEYS,
    TRAVELLING,
    Mesh,
    Reply,
    chat,
    eventually,
    no_secret_in,
    running_mesh,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEGAL = "questions of law: contracts, terms and conditions, privacy and compliance"
MIB = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def streaming(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    names = ("openai", "coder", "anthropic", "next")
    async with running_mesh(CONFIGS / "streamed.yaml", tmp_path_factory.mktemp("streamed"), *names) as mesh:
        yield mesh


@pytest.fixture
def mesh(streaming: Mesh) -> Mesh:
    streaming.forget()
    return streaming


def body_of(text: str, **fields: Any) -> bytes:
    """The model last, as the official Python client writes it: no head tells it."""
    call = chat(text, **fields)
    return json.dumps({**call, "model": call.pop("model")}).encode()


def was_served(reply: Reply, reason: str = "policy") -> None:
    assert (reply.status, reply.reason) == (200, reason)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_small_body_is_routed_and_arrives_rewritten(mesh: Mesh, framing: str) -> None:
    body = body_of(CODING, metadata={"model": "not this one"})
    was_served(await mesh.send(body if framing == "length" else in_pieces(body, 7)))
    seen = mesh.only("coder")
    assert seen.body == body.replace(b'"whatever"', b'"coder"')
    assert seen.path == "/v1/served/here/chat/completions"
    assert seen.headers.getall("authorization") == [f"Bearer {PROVIDER_KEYS['CODER_KEY']}"]
    assert no_secret_in(seen, CLIENT_KEY)
    # Envoy takes the length away in this mode, and sends chunks.
    assert seen.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in seen.headers


@pytest.mark.parametrize("megabytes", [2, 40])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_beyond_window_and_limit_is_routed_by_its_head(
    mesh: Mesh, megabytes: int, framing: str
) -> None:
    body = body_of(CODING + " and more of it" * (megabytes * MIB // 15))
    heads = await mesh.counted("arch_ext_proc_decided_by_head_total")
    was_served(await mesh.send(body if framing == "length" else in_pieces(body)))
    assert mesh.only("coder").body == body.replace(b'"whatever"', b'"coder"')
    assert await mesh.counted("arch_ext_proc_decided_by_head_total") == heads + 1


async def test_a_body_of_the_windows_size_is_decided_whole(mesh: Mesh) -> None:
    window = mesh.stack.configuration.envoy.decision_window_bytes
    body = body_of(CODING, padding="x" * window)
    body = body.replace(b"x" * (len(body) - window), b"", 1)
    assert len(body) == window
    heads = await mesh.counted("arch_ext_proc_decided_by_head_total")
    was_served(await mesh.send(body))
    assert await mesh.counted("arch_ext_proc_decided_by_head_total") == heads


async def test_twenty_large_bodies_at_once_all_arrive(mesh: Mesh) -> None:
    body = body_of(CODING + " and more of it" * (2 << 16))
    replies = await asyncio.gather(*(mesh.send(body) for _ in range(20)))
    assert {(reply.status, reply.reason) for reply in replies} == {(200, "policy")}
    expected = body.replace(b'"whatever"', b'"coder"')
    assert [seen.body == expected for seen in mesh.providers["coder"].seen] == [True] * 20


async def test_an_upload_that_waits_in_the_middle_waits_for_nobody_and_is_routed(mesh: Mesh) -> None:
    """Slower than any message timeout would allow: there is none in this mode."""
    body = body_of(CODING)
    half_sent, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:20]
        half_sent.set()
        await go_on.wait()
        yield body[20:]

    slow = asyncio.ensure_future(mesh.send(slowly()))
    await half_sent.wait()
    was_served(await mesh.ask(CODING))
    go_on.set()
    was_served(await slow)
    assert [seen.model for seen in mesh.providers["coder"].seen] == ["coder", "coder"]


async def test_the_provider_gets_the_beginning_of_a_long_body_before_its_end_is_there(mesh: Mesh) -> None:
    body = body_of(CODING + " and more of it" * (MIB // 15))
    rest = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[: MIB // 2]
        await rest.wait()
        yield body[MIB // 2 :]

    slow = asyncio.ensure_future(mesh.send(slowly()))
    active = "cluster.coder.upstream_rq_active"
    async with asyncio.timeout(LIMIT_S):
        while not (await mesh.envoy_stats(active)).get(active):
            await asyncio.sleep(0.02)
    rest.set()
    was_served(await slow)
    assert mesh.only("coder").body == body.replace(b'"whatever"', b'"coder"')


async def test_a_chunked_body_with_trailers_is_routed(mesh: Mesh) -> None:
    body = body_of(CODING)
    answer = await answer_to_trailers(mesh, body)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"x-arch-reason: policy\r\n" in answer
    assert mesh.only("coder").body == body.replace(b'"whatever"', b'"coder"')


async def test_http2_clients_are_served_alike(mesh: Mesh) -> None:
    long = body_of(CODING + " and more of it" * (MIB // 15))
    async with httpx2.AsyncClient(http1=False, http2=True, timeout=LIMIT_S) as client:
        answers = await asyncio.gather(
            *(
                client.post(f"{mesh.stack.url}/v1/chat/completions", content=body, headers=CLIENT_HEADERS)
                for body in [body_of(CODING)] * 5 + [long] * 3
            )
        )
    assert {(answer.http_version, answer.status_code) for answer in answers} == {("HTTP/2", 200)}
    assert [seen.model for seen in mesh.providers["coder"].seen] == ["coder"] * 8
    assert (
        sum(seen.body == long.replace(b'"whatever"', b'"coder"') for seen in mesh.providers["coder"].seen)
        == 3
    )


async def test_a_client_that_waits_for_continue_gets_it(mesh: Mesh) -> None:
    was_served(await mesh.send(chat(CODING), expect100=True))


async def test_the_official_clients_get_their_streams(mesh: Mesh) -> None:
    async with AsyncOpenAI(base_url=f"{mesh.stack.url}/v1", api_key=CLIENT_KEY, max_retries=0) as client:
        turns: Any = [{"role": "user", "content": CODING}]
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(model="m", messages=turns, stream=True)
        ]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.split() == ["coder", "at", "coder", "here"]
    async with (
        AsyncAnthropic(base_url=mesh.stack.url, api_key=CLIENT_KEY, max_retries=0) as client,
        client.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": TRAVELLING}]
        ) as stream,
    ):
        words = [piece async for piece in stream.text_stream]
    assert "".join(words).split() == ["claude", "at", "anthropic", "here"]


async def test_a_compressed_body_within_the_window_is_routed_and_arrives_plain(mesh: Mesh) -> None:
    body = body_of(CODING)
    was_served(await mesh.send(gzip.compress(body), headers=[("content-encoding", "gzip")]))
    seen = mesh.only("coder")
    assert seen.body == body.replace(b'"whatever"', b'"coder"')
    assert "content-encoding" not in seen.headers


async def test_a_compressed_body_beyond_the_window_goes_unchanged_to_the_default(mesh: Mesh) -> None:
    window = mesh.stack.configuration.envoy.decision_window_bytes
    body = gzip.compress(body_of(CODING, padding="x" * 2 * window), compresslevel=0)
    was_served(await mesh.send(body, headers=[("content-encoding", "gzip")]), "body_too_large")
    seen = mesh.only("openai")
    assert (seen.body, seen.headers["content-encoding"]) == (body, "gzip")


@pytest.mark.parametrize(
    "body", [b"", b"{}{}", b"[" * 1000, b"\xff" * MIB], ids=["empty", "two", "open", "long"]
)
async def test_what_cannot_be_read_goes_unchanged_to_the_default(mesh: Mesh, body: bytes) -> None:
    was_served(await mesh.send(body), "body_unreadable" if body else "body_empty")
    assert mesh.only("openai").body == body


async def test_what_is_no_llm_call_passes_at_any_size(mesh: Mesh) -> None:
    upload = bytes(8 * MIB)
    reply = await mesh.send(upload, "/v1/files", headers=[("content-type", "application/octet-stream")])
    assert reply.status == 200
    assert mesh.only("openai").body == upload
    assert (await mesh.send(path="/v1/models", method="GET")).status == 200


async def test_an_llm_call_that_is_no_json_flows_through_to_the_default(mesh: Mesh) -> None:
    upload = bytes(2 * MIB)
    reply = await mesh.send(upload, headers=[("content-type", "multipart/form-data; boundary=x")])
    was_served(reply, "content_type_unsupported")
    assert mesh.only("openai").body == upload


@pytest.mark.parametrize("size", [0, MIB, 3 * MIB], ids=["small", "beyond the window", "below the limit"])
async def test_a_fallback_takes_over_and_gets_the_body_for_itself(mesh: Mesh, size: int) -> None:
    mesh.providers["anthropic"].behave = Behaviour(status=503)
    body = body_of(TRAVELLING, padding="x" * size)
    reply = await mesh.send(body)
    was_served(reply)
    assert reply.model == "vllm/next"
    (seen,) = mesh.providers["next"].seen
    assert seen.body == body.replace(b'"whatever"', b'"next"')
    assert seen.headers["x-next-key"] == PROVIDER_KEYS["NEXT_KEY"]


async def test_a_body_beyond_the_limit_has_one_attempt(mesh: Mesh) -> None:
    mesh.providers["anthropic"].behave = Behaviour(status=503)
    body = body_of(TRAVELLING, padding="x" * 8 * MIB)
    reply = await mesh.send(body)
    assert reply.status == 503
    assert mesh.only("anthropic").body == body.replace(b'"whatever"', b'"claude"')


async def test_a_copy_is_made_of_a_body_that_was_decided_whole(mesh: Mesh) -> None:
    body = body_of(LEGAL)
    was_served(await mesh.send(body))
    await eventually(lambda: mesh.counts() == {"coder": 1, "next": 1}, "the copy")
    (copy,) = mesh.providers["next"].seen
    assert copy.body == body.replace(b'"whatever"', b'"next"')
    assert no_secret_in(copy, CLIENT_KEY, PROVIDER_KEYS["CODER_KEY"])


async def test_no_copy_is_made_of_a_body_that_was_decided_by_its_head(mesh: Mesh) -> None:
    refused = await mesh.counted("arch_ext_proc_shadow_copies_refused_total", reason="body")
    was_served(await mesh.send(body_of(LEGAL + " and more of it" * (MIB // 15))))
    assert await mesh.counted("arch_ext_proc_shadow_copies_refused_total", reason="body") == refused + 1
    assert mesh.only("coder")


@pytest.mark.parametrize("sent", [20, MIB], ids=["before the decision", "after it"])
async def test_a_client_that_leaves_mid_body_leaves_nothing_behind(mesh: Mesh, sent: int) -> None:
    body = body_of(CODING + " and more of it" * (MIB // 8))
    await nothing_stays_of_whoever_leaves_in(mesh, body[:sent], len(body))
