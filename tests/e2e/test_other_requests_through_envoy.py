"""What is no LLM call passes at once and untouched; what a client claims in our headers counts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ext_proc.core import headers
from tests.support.mesh import CLIENT_KEY, PROVIDER_KEYS, Mesh, chat, no_secret_in

pytestmark = pytest.mark.asyncio(loop_scope="session")

OTHERS = [
    ("GET", "/v1/models?limit=3", b""),
    ("GET", "/healthz", b""),
    ("GET", "/v1/chat/completions", b""),
    ("HEAD", "/v1/models", b""),
    ("DELETE", "/v1/responses/resp_1", b""),
    ("OPTIONS", "/v1/chat/completions", b""),
    ("POST", "/v1/files?purpose=batch", b"not json"),
    ("POST", "/v1/chat/completions/", b"{}"),
    ("POST", "/v1/chat/completions/chatcmpl-1", b"{}"),
    ("POST", "/chat/completions", b"{}"),
    ("PUT", "/v1/chat/completions", b"{}"),
    ("POST", "/", b"\x00\xff"),
]

SPOOFED = [
    (headers.CLUSTER, "anthropic"),
    (headers.CLUSTER, "arch_ext_proc"),
    (headers.POLICY, "spoofed-policy"),
    (headers.MODEL, "anthropic/claude"),
    (headers.MODEL, "spoofed/model"),
    (headers.ARM, "spoofed-arm"),
    (headers.BUCKET, "1"),
    (headers.SHADOW, "anthropic"),
    (headers.REASON, "spoofed-reason"),
    (headers.SPLIT, "code generation"),
    (headers.OBSERVE, "1"),
    (headers.NOISE, "anthropic"),
    (headers.WRITTEN_FOR, "openai/gpt-4o"),
    (headers.FAILOVER, "1000"),
    (headers.ATTEMPT, "openai/gpt-4o"),
]


async def streams_opened(mesh: Mesh) -> int:
    """How often Envoy has asked the server so far."""
    found = await mesh.envoy_stats("ext_proc.streams_started")
    assert found
    return sum(found.values())


async def test_every_header_of_ours_is_among_the_spoofed_ones() -> None:
    assert {name for name, _ in SPOOFED} == set(headers.DECISION)


@pytest.mark.parametrize(("method", "path", "body"), OTHERS, ids=[f"{m} {p}" for m, p, _ in OTHERS])
async def test_what_is_no_llm_call_passes_untouched(mesh: Mesh, method: str, path: str, body: bytes) -> None:
    asked = await streams_opened(mesh)
    reply = await mesh.send(body or None, path, method=method)
    assert reply.status == 200
    seen = mesh.only("openai")
    assert (seen.method, seen.path, seen.body) == (method, path, body)
    assert seen.headers.getall("authorization") == [f"Bearer {CLIENT_KEY}"]
    assert no_secret_in(seen, *PROVIDER_KEYS.values())
    assert await streams_opened(mesh) == asked


async def test_a_large_upload_that_is_no_llm_call_is_never_buffered(mesh: Mesh) -> None:
    upload = bytes(mesh.stack.configuration.envoy.body_limit_bytes + (8 << 20))
    reply = await mesh.send(upload, "/v1/files")
    assert reply.status == 200
    assert mesh.only("openai").body == upload


@pytest.mark.parametrize("size", [5, 40 << 20], ids=["small", "over the limit of bodies"])
async def test_an_llm_path_with_a_body_that_is_no_json_goes_unread_to_the_default(
    mesh: Mesh, size: int
) -> None:
    counted = await mesh.decisions(reason="content_type_unsupported")
    sent = bytes(size)

    async def upload() -> AsyncIterator[bytes]:
        """The rest once the headers are answered: of more before that than the limit, Envoy makes a 413."""
        yield sent[:1]
        async with asyncio.timeout(60):
            while await mesh.decisions(reason="content_type_unsupported") == counted:
                await asyncio.sleep(0.01)
        yield sent[1:]

    reply = await mesh.send(upload(), headers=[("content-type", "multipart/form-data; boundary=x")])
    assert (reply.status, reply.reason) == (200, "content_type_unsupported")
    assert reply.model == "openai/gpt-4o-mini"
    assert mesh.only("openai").body == sent
    assert await mesh.decisions(reason="content_type_unsupported") == counted + 1


async def test_query_strings_reach_the_provider(mesh: Mesh) -> None:
    query = "?api-version=2024-06-01&a=%2Fb%20c&a=%C3%A9&empty=&flag"
    reply = await mesh.send(chat("write a function in code"), f"/v1/chat/completions{query}")
    assert reply.reason == "policy"
    assert mesh.only("coder").path == f"/v1/served/here/chat/completions{query}"


async def test_a_path_in_front_of_v1_gives_way_to_the_providers(mesh: Mesh) -> None:
    reply = await mesh.send(chat("write a function in code"), "/tenants/7/v1/chat/completions")
    assert reply.reason == "policy"
    assert mesh.only("coder").path == "/v1/served/here/chat/completions"


async def test_spoofed_headers_change_no_decision(mesh: Mesh) -> None:
    honest = await mesh.ask(session="spoofer")
    bucket = mesh.only("coder").headers[headers.BUCKET]
    mesh.forget()
    reply = await mesh.send(
        chat("write a function in code"), headers=[*SPOOFED, ("x-arch-session", "spoofer")]
    )
    assert (reply.policy, reply.model, reply.reason) == (honest.policy, honest.model, honest.reason)
    seen = mesh.only("coder")
    for name in (headers.WRITTEN_FOR, headers.ATTEMPT):
        assert seen.headers.getall(name) == ["vllm/coder"]
    assert seen.headers.getall(headers.MODEL) == ["vllm/coder"]
    assert seen.headers.getall(headers.ARM) == ["baseline"]
    assert seen.headers.getall(headers.BUCKET) == [bucket]
    assert not {headers.SHADOW, *headers.UNTIL_ROUTED} & {name.lower() for name in seen.headers}


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", "/anything")])
async def test_spoofed_headers_take_no_other_request_anywhere(mesh: Mesh, method: str, path: str) -> None:
    reply = await mesh.send(b"{}" if method == "POST" else None, path, method=method, headers=SPOOFED)
    assert reply.status == 200
    seen = mesh.only("openai")
    assert not {*headers.DECISION} & {name.lower() for name in seen.headers}
    assert no_secret_in(seen, "spoofed", "anthropic", *PROVIDER_KEYS.values())
    assert not {*headers.SHOWN_TO_CLIENT} & {name.lower() for name in reply.headers}
