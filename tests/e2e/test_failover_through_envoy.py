"""Ranked targets through Envoy: one request of a client, one attempt per target until one answers."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from demo.processes import free_port
from demo.stand_in import Behaviour, Seen
from tests.support.mesh import (
    CLIENT_KEY,
    CODING,
    CONFIGS,
    PROVIDER_KEYS,
    TRAVELLING,
    Mesh,
    chat,
    no_secret_in,
    running_mesh,
)
from tests.support.reloaded import PROVIDERS, a_file

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEGAL = "questions of law: contracts, terms and conditions, privacy and compliance"
WRITING = "write a story, a poem, song lyrics, a slogan or another imaginative text"
OPENAI, CODER, NEXT = (PROVIDER_KEYS[name] for name in ("OPENAI_KEY", "CODER_KEY", "NEXT_KEY"))
HALVES = [f"{{model: {model}, weight: 1}}" for model in ("vllm/coder", "vllm/next")]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def failing_over(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    gone = {"GONE_UPSTREAM": f"http://127.0.0.1:{free_port()}/v1"}
    folder = tmp_path_factory.mktemp("failover")
    names = ("openai", "first", "second", "third")
    async with running_mesh(CONFIGS / "failover.yaml", folder, *names, environ=gone) as mesh:
        yield mesh


@pytest.fixture
def mesh(failing_over: Mesh) -> Mesh:
    failing_over.forget()
    return failing_over


def fails(mesh: Mesh, **statuses: int) -> None:
    for name, status in statuses.items():
        mesh.providers[name].behave = Behaviour(status=status)


def keys_of(seen: Seen) -> dict[str, list[str]]:
    """Every credential in a request, by its header."""
    names = ("authorization", "x-api-key", "api-key", "x-first-key")
    return {name: seen.headers.getall(name) for name in names if name in seen.headers}


async def test_one_request_goes_429_503_200_and_each_provider_sees_its_own_model_path_and_key(
    mesh: Mesh,
) -> None:
    fails(mesh, first=429, second=503)
    body = b'{ "model":"x", "seed": 1E+2, "messages" :[{"role":"user","content":"write a function in code"}]}'
    reply = await mesh.send(body, "/v1/chat/completions?a=1")
    assert (reply.status, reply.policy, reply.model) == (200, "code generation", "third/three")
    assert (reply.reason, reply.headers["x-arch-attempts"]) == ("policy", "3")
    assert b"three at third" in reply.body
    first, second, third = (mesh.providers[name].seen for name in ("first", "second", "third"))
    assert [len(first), len(second), len(third)] == [1, 1, 1]
    assert first[0].path == "/v1/own/path/chat/completions?a=1"
    assert (second[0].path, third[0].path) == ("/v1/chat/completions?a=1",) * 2
    assert keys_of(first[0]) == {"x-first-key": [OPENAI]}
    assert keys_of(second[0]) == {"authorization": [f"Bearer {CODER}"]}
    assert keys_of(third[0]) == {"api-key": [NEXT]}
    for seen, model, own in ((first[0], "one", OPENAI), (second[0], "two", CODER), (third[0], "three", NEXT)):
        assert seen.body == body.replace(b'"x"', f'"{model}"'.encode())
        assert no_secret_in(seen, *{OPENAI, CODER, NEXT, CLIENT_KEY} - {own})
    ports = {name: mesh.providers[name].port for name in ("first", "second", "third")}
    hosts = [seen.headers["host"] for seen in (first[0], second[0], third[0])]
    assert hosts == [f"127.0.0.1:{port}" for port in ports.values()]
    assert not mesh.providers["openai"].seen


async def test_the_usual_request_costs_no_second_stream(mesh: Mesh) -> None:
    before = await mesh.envoy_stats("ext_proc.streams_started")
    reply = await mesh.ask(CODING)
    after = await mesh.envoy_stats("ext_proc.streams_started")
    assert (reply.status, reply.model, reply.headers["x-arch-attempts"]) == (200, "first/one", "1")
    assert sum(after.values()) - sum(before.values()) == 1
    assert keys_of(mesh.only("first")) == {"x-first-key": [OPENAI]}


async def test_when_all_fail_the_client_gets_the_status_and_words_of_the_last(mesh: Mesh) -> None:
    fails(mesh, first=429, second=500, third=418)
    reply = await mesh.ask(CODING)
    assert (reply.status, reply.model) == (418, "third/three")
    assert b"third was told to fail" in reply.body
    assert mesh.counts() == {"first": 1, "second": 1, "third": 1}
    fails(mesh, third=502)
    assert (await mesh.ask(CODING)).status == 502


async def test_what_is_the_clients_fault_is_not_tried_elsewhere(mesh: Mesh) -> None:
    fails(mesh, first=400)
    reply = await mesh.ask(CODING)
    assert (reply.status, reply.model, mesh.counts()) == (400, "first/one", {"first": 1})


async def test_a_body_of_megabytes_is_sent_again_whole_compressed_or_not(mesh: Mesh) -> None:
    fails(mesh, first=503)
    body = chat(CODING, padding="ü" * (1 << 20))
    for packed, encoding in (
        (json.dumps(body).encode(), []),
        (gzip.compress(json.dumps(body).encode()), ["gzip"]),
    ):
        mesh.providers["second"].seen.clear()
        reply = await mesh.send(packed, headers=[("content-encoding", name) for name in encoding])
        assert (reply.status, reply.model) == (200, "second/two")
        (seen,) = mesh.providers["second"].seen
        assert json.loads(seen.body) == body | {"model": "two"}
        assert int(seen.headers["content-length"]) == len(seen.body)


@pytest.mark.parametrize("model", ["x", "one"])
async def test_a_compressed_body_reaches_the_third_target_whole_whatever_its_model(
    mesh: Mesh, model: str
) -> None:
    fails(mesh, first=503, second=503)
    body = chat(CODING, model=model)
    packed = gzip.compress(json.dumps(body).encode())
    reply = await mesh.send(packed, headers=[("content-encoding", "gzip")])
    assert (reply.status, reply.model) == (200, "third/three")
    (seen,) = mesh.providers["third"].seen
    assert json.loads(seen.body) == body | {"model": "three"}


async def test_a_target_that_cannot_serve_the_call_is_passed_over(mesh: Mesh) -> None:
    fails(mesh, first=503)
    parts = [{"type": "text", "text": CODING}, IMAGE]
    with_image = {"model": "x", "messages": [{"role": "user", "content": parts}]}
    reply = await mesh.send(with_image)
    assert (reply.status, reply.model, reply.headers["x-arch-attempts"]) == (200, "third/three", "2")
    long = chat(CODING, max_tokens=5000)
    assert (await mesh.send(long)).model == "third/three"
    as_message = {"model": "x", "max_tokens": 9, "messages": [{"role": "user", "content": CODING}]}
    assert (await mesh.send(as_message, "/v1/messages")).model == "third/three"
    assert not mesh.providers["second"].seen
    assert (await mesh.ask(CODING)).model == "second/two"
    # First in its list, it is not even asked.
    reply = await mesh.send(chat(TRAVELLING, max_tokens=5000))
    assert (reply.model, reply.headers["x-arch-attempts"]) == ("third/three", "1")


async def test_two_models_of_one_provider_may_follow_each_other(mesh: Mesh) -> None:
    fails(mesh, second=429, third=429)
    reply = await mesh.ask(TRAVELLING)
    assert (reply.status, reply.model, reply.headers["x-arch-attempts"]) == (429, "third/four", "3")
    assert [seen.model for seen in mesh.providers["third"].seen] == ["three", "four"]


async def test_a_policy_says_itself_when_to_go_on(mesh: Mesh) -> None:
    fails(mesh, second=503)
    reply = await mesh.ask(TRAVELLING)
    assert (reply.status, reply.model) == (503, "second/two")
    mesh.providers["second"].behave = Behaviour(delay_s=3600)
    reply = await mesh.ask(TRAVELLING)
    assert (reply.status, reply.model) == (200, "third/three")


async def test_a_policy_without_a_second_target_passes_its_error_on(tmp_path: Path) -> None:
    text = a_file().replace("models: [vllm/coder]", f"targets: [{', '.join(HALVES)}]")
    file = tmp_path / "config.yaml"
    file.write_text(text.replace("models: [openai/gpt-4o-mini]", "models: [vllm/next]"))
    async with running_mesh(file, tmp_path, *PROVIDERS) as mesh:
        fails(mesh, coder=503, next=503)
        for question, models in ((CODING, {"vllm/coder", "vllm/next"}), (TRAVELLING, {"vllm/next"})):
            replies = [await mesh.ask(question, session=str(number)) for number in range(30)]
            assert {reply.model for reply in replies} == models
            assert {(reply.status, reply.reason) for reply in replies} == {(503, "policy")}
        assert not mesh.providers["openai"].seen


async def test_a_provider_that_is_down_or_breaks_off_is_failed_over(mesh: Mesh) -> None:
    reply = await mesh.ask(LEGAL)
    assert (reply.status, reply.model) == (200, "third/three")
    assert keys_of(mesh.only("third")) == {"api-key": [NEXT]}
    mesh.forget()
    mesh.providers["first"].behave = Behaviour(reset=True)
    reply = await mesh.ask(CODING)
    assert (reply.status, reply.model) == (200, "second/two")


async def test_a_streamed_answer_streams_after_a_failover(mesh: Mesh) -> None:
    fails(mesh, first=429)
    mesh.providers["second"].behave = Behaviour(chunk_delay_s=1)
    body = json.dumps(chat(CODING, stream=True)).encode()
    json_body = {"content-type": "application/json"}
    async with mesh.http.post(
        f"{mesh.stack.url}/v1/chat/completions", data=body, headers=json_body
    ) as answer:
        assert (answer.status, answer.headers["x-arch-model"]) == (200, "second/two")
        first = await answer.content.readany()
        assert b"data: " in first
        assert b"[DONE]" not in first
        mesh.providers["second"].behave = Behaviour()
        assert (await answer.read()).endswith(b"data: [DONE]\n\n")


async def test_a_provider_that_keeps_failing_is_passed_over_at_once(mesh: Mesh) -> None:
    fails(mesh, first=500)
    replies = [await mesh.ask(WRITING) for _ in range(4)]
    assert {(reply.status, reply.model) for reply in replies} == {(200, "third/four")}
    assert [reply.headers["x-arch-attempts"] for reply in replies] == ["2", "2", "1", "1"]
    assert mesh.counts() == {"first": 2, "third": 4}
    for seen in mesh.providers["third"].seen:
        assert keys_of(seen) == {"api-key": [NEXT]}
        assert no_secret_in(seen, OPENAI, CLIENT_KEY)


async def test_a_requests_own_policy_fails_over_where_the_file_has_that_list(mesh: Mesh) -> None:
    fails(mesh, first=429)
    mine = {"name": "mine", "description": CODING}
    listed = [{**mine, "models": ["first/one", "second/two", "third/three"]}]
    reply = await mesh.send(chat(CODING, routing_preferences=listed))
    assert (reply.status, reply.policy, reply.model) == (200, "mine", "second/two")
    assert b"routing_preferences" not in mesh.providers["second"].seen[0].body
    other = [{**mine, "models": ["first/one", "openai/gpt-4o-mini"]}]
    reply = await mesh.send(chat(CODING, routing_preferences=other))
    assert (reply.status, reply.model) == (429, "first/one")


async def test_steps_of_failovers_are_counted_by_target(mesh: Mesh) -> None:
    async def counted(model: str, outcome: str) -> float:
        return await mesh.counted("arch_ext_proc_attempts_total", model=model, outcome=outcome)

    steps = [("first/one", "left"), ("second/two", "tried"), ("second/two", "left"), ("third/three", "tried")]
    before = [await counted(*step) for step in steps]
    fails(mesh, first=429, second=503)
    await mesh.ask(CODING)
    assert [await counted(*step) for step in steps] == [count + 1 for count in before]
