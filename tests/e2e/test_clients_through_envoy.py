"""The official clients, pointed at Envoy and otherwise unchanged."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from ext_proc.core import headers
from tests.support.mesh import (
    CLIENT_KEY,
    CODING,
    PROVIDER_KEYS,
    TRAVELLING,
    Mesh,
    chat,
    no_secret_in,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

TURNS: list[Any] = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": [{"type": "text", "text": CODING}]},
    {"role": "assistant", "content": "Here it is."},
    {"role": "user", "content": "Make the function of that code shorter."},
]


@pytest_asyncio.fixture(loop_scope="session")
async def openai(mesh: Mesh) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{mesh.stack.url}/v1", api_key=CLIENT_KEY, max_retries=0) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def anthropic(mesh: Mesh) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=mesh.stack.url, api_key=CLIENT_KEY, max_retries=0) as client:
        yield client


def went_to_coder(mesh: Mesh, shown: Mapping[str, str], endpoint: str) -> None:
    """Everything that routing promises about one request whose conversation was about code."""
    seen = mesh.only("coder")
    assert seen.path == f"/v1/served/here/{endpoint}"
    assert json.loads(seen.body)["model"] == "coder"
    assert seen.headers["host"] == mesh.providers["coder"].base_url.split("/")[2]
    assert seen.headers.getall("authorization") == [f"Bearer {PROVIDER_KEYS['CODER_KEY']}"]
    assert no_secret_in(seen, CLIENT_KEY)
    assert int(seen.headers["content-length"]) == len(seen.body)
    assert shown[headers.POLICY] == "code generation"
    assert shown[headers.MODEL] == "vllm/coder"
    assert shown[headers.REASON] == "policy"


async def test_a_chat_completion_reaches_the_model_that_its_conversation_is_for(
    mesh: Mesh, openai: AsyncOpenAI
) -> None:
    answer = await openai.chat.completions.with_raw_response.create(model="gpt-4o", messages=TURNS)
    assert answer.parse().choices[0].message.content == "coder at coder here"
    went_to_coder(mesh, answer.headers, "chat/completions")


async def test_a_streamed_chat_completion_arrives_in_all_its_pieces(mesh: Mesh, openai: AsyncOpenAI) -> None:
    answer = await openai.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=TURNS, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in answer.parse()]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.split() == ["coder", "at", "coder", "here"]
    assert chunks[-1].usage is not None
    went_to_coder(mesh, answer.headers, "chat/completions")


@pytest.mark.parametrize("given", [CODING, [{"role": "user", "content": CODING}]], ids=["text", "items"])
async def test_a_response_reaches_the_model_that_its_input_is_for(
    mesh: Mesh, openai: AsyncOpenAI, given: Any
) -> None:
    answer = await openai.responses.with_raw_response.create(
        model="gpt-4o", input=given, instructions="Be brief."
    )
    assert answer.parse().output_text == "coder at coder here"
    went_to_coder(mesh, answer.headers, "responses")


async def test_a_streamed_response_arrives_in_all_its_events(mesh: Mesh, openai: AsyncOpenAI) -> None:
    answer = await openai.responses.with_raw_response.create(model="gpt-4o", input=CODING, stream=True)
    kinds = [event.type async for event in answer.parse()]
    assert kinds[0] == "response.created"
    assert kinds.count("response.output_text.delta") == 4
    assert kinds[-1] == "response.completed"
    went_to_coder(mesh, answer.headers, "responses")


async def test_a_completion_reaches_the_model_that_its_prompt_is_for(mesh: Mesh, openai: AsyncOpenAI) -> None:
    answer = await openai.completions.with_raw_response.create(model="gpt-4o", prompt=CODING)
    assert answer.parse().choices[0].text == "coder at coder here"
    went_to_coder(mesh, answer.headers, "completions")


async def test_a_streamed_completion_arrives(mesh: Mesh, openai: AsyncOpenAI) -> None:
    answer = await openai.completions.with_raw_response.create(model="gpt-4o", prompt=CODING, stream=True)
    assert [piece.choices[0].text async for piece in answer.parse()] == ["coder at coder here"]
    went_to_coder(mesh, answer.headers, "completions")


async def test_an_embedding_keeps_its_own_model_and_gets_the_default_providers_key(
    mesh: Mesh, openai: AsyncOpenAI
) -> None:
    answer = await openai.embeddings.with_raw_response.create(model="text-embedding-3-small", input=[CODING])
    assert len(answer.parse().data) == 1
    seen = mesh.only("openai")
    assert seen.path == "/v1/embeddings"
    assert seen.model == "text-embedding-3-small"
    assert seen.headers.getall("authorization") == [f"Bearer {PROVIDER_KEYS['OPENAI_KEY']}"]
    assert no_secret_in(seen, CLIENT_KEY)
    assert answer.headers[headers.REASON] == "embeddings"


async def test_an_anthropic_message_reaches_the_model_that_its_conversation_is_for(
    mesh: Mesh, anthropic: AsyncAnthropic
) -> None:
    answer = await anthropic.messages.with_raw_response.create(
        model="claude-opus",
        max_tokens=99,
        system="Be brief.",
        messages=[{"role": "user", "content": TRAVELLING}],
    )
    assert (await answer.parse()).content[0].text == "claude at anthropic here"
    seen = mesh.only("anthropic")
    assert seen.path == "/v1/messages"
    assert seen.model == "claude"
    assert seen.headers.getall("x-api-key") == [PROVIDER_KEYS["ANTHROPIC_KEY"]]
    assert "authorization" not in seen.headers
    assert seen.headers["anthropic-version"]
    assert no_secret_in(seen, CLIENT_KEY)
    assert answer.headers[headers.POLICY] == "travel planning"
    assert answer.headers[headers.MODEL] == "anthropic/claude"


async def test_a_streamed_anthropic_message_arrives_in_all_its_events(
    mesh: Mesh, anthropic: AsyncAnthropic
) -> None:
    async with anthropic.messages.stream(
        model="claude-opus", max_tokens=99, messages=[{"role": "user", "content": TRAVELLING}]
    ) as stream:
        text = [piece async for piece in stream.text_stream]
        shown = stream.response.headers
    assert "".join(text).split() == ["claude", "at", "anthropic", "here"]
    assert mesh.only("anthropic").model == "claude"
    assert shown[headers.REASON] == "policy"


async def test_an_anthropic_client_may_end_at_a_provider_with_another_kind_of_key(
    mesh: Mesh, anthropic: AsyncAnthropic
) -> None:
    answer = await anthropic.messages.with_raw_response.create(
        model="claude-opus", max_tokens=99, messages=[{"role": "user", "content": CODING}]
    )
    assert (await answer.parse()).content[0].text == "coder at coder here"
    went_to_coder(mesh, answer.headers, "messages")
    assert "x-api-key" not in mesh.only("coder").headers


async def test_a_conversation_without_words_for_a_router_goes_to_the_default(
    mesh: Mesh, openai: AsyncOpenAI
) -> None:
    picture: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    answer = await openai.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": [picture]}]
    )
    assert mesh.only("openai").model == "gpt-4o-mini"
    assert answer.headers[headers.REASON] == "no_conversation"
    assert headers.POLICY not in answer.headers


async def test_no_provider_sees_any_header_that_a_client_may_carry_a_key_in(mesh: Mesh) -> None:
    bearer = ("authorization", f"Bearer {CLIENT_KEY}")
    keys = {name: f"{CLIENT_KEY}-{name}" for name in ("x-api-key", "api-key", "x-goog-api-key")}
    for text, name in ((CODING, "coder"), (TRAVELLING, "anthropic")):
        mesh.forget()
        # Twice the same: a second line of a header must not slip through.
        doubled = [*keys.items(), bearer, *keys.items(), bearer]
        await mesh.send(chat(text), headers=doubled)
        seen = mesh.only(name)
        assert no_secret_in(seen, CLIENT_KEY)
        carried = {"authorization", *keys} & {header.lower() for header in seen.headers}
        assert len(carried) == 1


async def test_a_provider_without_a_key_gets_none(mesh: Mesh) -> None:
    await mesh.send(chat("hi") | {"model": "local/keyless"})
    seen = mesh.only("local")
    assert not {"authorization", "x-api-key", "api-key"} & {name.lower() for name in seen.headers}


async def test_the_clients_own_key_reaches_the_provider_that_passes_it_through(mesh: Mesh) -> None:
    await mesh.send(chat("hi") | {"model": "byok/passthrough"})
    assert mesh.only("local").headers.getall("authorization") == [f"Bearer {CLIENT_KEY}"]
