"""Answers are seen while they pass, and no client notices."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from demo.stand_in import Behaviour, Seen
from ext_proc.core import headers
from tests.support.mesh import (
    CLIENT_HEADERS,
    CODING,
    CONFIGS,
    TRAVELLING,
    Mesh,
    chat,
    eventually,
    running_mesh,
)

LOGGER = logging.getLogger(__name__)

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEGAL = "questions of law: contracts, terms and conditions, privacy and compliance"
WRITING = "write a story, a poem, song lyrics, a slogan or another imaginative text"
SUPPORT = "I need help with an order, a refund, a delivery, an invoice or my account"
CODE = "code generation"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def observing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    folder = tmp_path_factory.mktemp("observe")
    async with running_mesh(CONFIGS / "observe.yaml", folder, "openai", "next", log_level="DEBUG") as mesh:
        yield mesh


@pytest.fixture
def mesh(observing: Mesh) -> Mesh:
    observing.forget()
    return observing


class Counted:
    """What a counter of the policy's primary answers rose by since the test began."""

    def __init__(self, mesh: Mesh, before: dict[str, float]) -> None:
        self._mesh = mesh
        self._before = before

    async def of(self, name: str, **labels: str) -> float:
        found = await self._mesh.counted(f"arch_ext_proc_{name}", **labels)
        return found - self._before.get(f"{name} {sorted(labels.items())}", 0.0)

    async def reaches(self, number: float, name: str, **labels: str) -> None:
        async with asyncio.timeout(60):
            while await self.of(name, **labels) < number:
                await asyncio.sleep(0.02)
        assert await self.of(name, **labels) == number


async def counting(mesh: Mesh, *series: tuple[str, dict[str, str]]) -> Counted:
    before = {
        f"{name} {sorted(labels.items())}": await mesh.counted(f"arch_ext_proc_{name}", **labels)
        for name, labels in series
    }
    return Counted(mesh, before)


ANSWERS = ("answers_total", {"policy": CODE, "model": "openai/gpt-4o", "arm": "baseline", "status": "2xx"})
TOKENS = ("answer_tokens_total", {"policy": CODE, "direction": "out"})
COST = ("answer_cost_total", {"policy": CODE})
ERRORS = ("answer_errors_total", {"policy": CODE})


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/responses", {"input": CODING}),
        ("/v1/responses", {"input": CODING, "stream": True}),
        ("/v1/messages", {}),
        ("/v1/messages", {"stream": True}),
    ],
    ids=["chat", "chat streamed", "responses", "responses streamed", "messages", "messages streamed"],
)
async def test_status_tokens_and_cost_of_every_api_are_counted(
    mesh: Mesh, path: str, fields: dict[str, object]
) -> None:
    counted = await counting(mesh, ANSWERS, TOKENS, COST, ERRORS)
    reply = await mesh.send(chat(CODING, **fields), path)
    assert (reply.status, reply.policy) == (200, CODE)
    await counted.reaches(1, ANSWERS[0], **ANSWERS[1])
    assert await counted.of(TOKENS[0], **TOKENS[1]) == 5
    assert await counted.of(COST[0], **COST[1]) == 9 * 1 + 5 * 2
    assert await counted.of(ERRORS[0], **ERRORS[1]) == 0


async def test_a_compressed_answer_is_read_and_reaches_the_client_compressed(mesh: Mesh) -> None:
    mesh.providers["openai"].behave = Behaviour(compress=True)
    counted = await counting(mesh, ANSWERS, TOKENS)
    reply = await mesh.send(chat(CODING), headers=[("accept-encoding", "gzip")])
    assert reply.headers["content-encoding"] == "gzip"
    assert b"gpt-4o at openai here" in reply.body
    await counted.reaches(1, ANSWERS[0], **ANSWERS[1])
    assert await counted.of(TOKENS[0], **TOKENS[1]) == 5


async def test_an_error_is_an_answer_too(mesh: Mesh) -> None:
    mesh.providers["openai"].behave = Behaviour(status=503)
    labels = {"policy": CODE, "status": "5xx"}
    counted = await counting(mesh, ("answers_total", labels), ERRORS)
    assert (await mesh.ask()).status == 503
    await counted.reaches(1, "answers_total", **labels)
    assert await counted.of(ERRORS[0], **ERRORS[1]) == 1


async def test_a_provider_that_breaks_off_before_it_answers_is_an_error(mesh: Mesh) -> None:
    mesh.providers["openai"].behave = Behaviour(reset=True)
    counted = await counting(mesh, ERRORS)
    assert (await mesh.ask()).status == 503
    await counted.reaches(1, ERRORS[0], **ERRORS[1])


async def test_a_policy_that_is_not_observed_has_no_second_stream(mesh: Mesh) -> None:
    before = await mesh.envoy_stats("observe.streams_started")
    assert (await mesh.ask(LEGAL)).policy == "legal"
    await mesh.send(b"not json")
    await mesh.send(None, "/v1/models", method="GET")
    assert await mesh.envoy_stats("observe.streams_started") == before
    counted = await counting(mesh, ANSWERS)
    await mesh.ask()
    await counted.reaches(1, ANSWERS[0], **ANSWERS[1])
    after = await mesh.envoy_stats("observe.streams_started")
    assert sum(after.values()) == sum(before.values()) + 1


async def shadows(mesh: Mesh, policy: str) -> dict[str, Any]:
    async with mesh.http.get(f"{mesh.stack.admin_url}/shadows") as answer:
        shown = await answer.json()
    return {total["role"]: total for total in shown["totals"] if total["policy"] == policy}


async def pairs_of(mesh: Mesh, policy: str, number: int) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while sum(total["pairs"] for total in (await shadows(mesh, policy)).values()) < number:
            await asyncio.sleep(0.02)
    return await shadows(mesh, policy)


@asynccontextmanager
async def both_copies_compared(mesh: Mesh) -> AsyncIterator[None]:
    """Of a request under "travel planning": no later test counts what this one left on its way."""
    before = sum(total["pairs"] for total in (await shadows(mesh, "travel planning")).values())
    yield
    await pairs_of(mesh, "travel planning", before + 2)


async def first_event_before_the_second_is_sent(mesh: Mesh, text: str = CODING) -> None:
    """The provider sends its second event only when the client has the first one."""
    hold = asyncio.Event()
    mesh.providers["openai"].behave = Behaviour(hold=hold)
    url = f"{mesh.stack.url}/v1/chat/completions"
    async with mesh.http.post(url, json=chat(text, stream=True), headers=CLIENT_HEADERS) as answer:
        first = await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 60)
        assert b'"role": "assistant"' in first
        assert not hold.is_set()
        hold.set()
        assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("text", [CODING, TRAVELLING], ids=["observed", "observed and copied"])
async def test_the_first_event_of_a_stream_is_not_held_back(mesh: Mesh, text: str) -> None:
    counted = await counting(mesh, ANSWERS)
    if text == CODING:
        await first_event_before_the_second_is_sent(mesh, text)
        await counted.reaches(1, ANSWERS[0], **ANSWERS[1])
    else:
        async with both_copies_compared(mesh):
            await first_event_before_the_second_is_sent(mesh, text)


async def test_a_server_that_hangs_while_an_answer_passes_costs_the_client_nothing(mesh: Mesh) -> None:
    hold = asyncio.Event()
    mesh.providers["openai"].behave = Behaviour(hold=hold, text="word " * 50_000)
    url = f"{mesh.stack.url}/v1/chat/completions"
    async with mesh.http.post(url, json=chat(CODING, stream=True), headers=CLIENT_HEADERS) as answer:
        await answer.content.readuntil(b"\n\n")
        mesh.stack.server.send(signal.SIGSTOP)
        try:
            hold.set()
            rest = await asyncio.wait_for(answer.content.read(), 60)
        finally:
            mesh.stack.server.send(signal.SIGCONT)
    assert rest.endswith(b"data: [DONE]\n\n")
    assert rest.count(b'"content": "word "') == 50_000
    await mesh.decided_again(LEGAL)


async def test_a_server_that_dies_while_an_answer_passes_costs_the_client_nothing(mesh: Mesh) -> None:
    hold = asyncio.Event()
    mesh.providers["openai"].behave = Behaviour(hold=hold)
    url = f"{mesh.stack.url}/v1/chat/completions"
    async with mesh.http.post(url, json=chat(CODING, stream=True), headers=CLIENT_HEADERS) as answer:
        await answer.content.readuntil(b"\n\n")
        await mesh.stack.server.kill()
        hold.set()
        assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")
    await mesh.stack.restart_server()
    await mesh.decided_again(LEGAL)


async def test_a_provider_that_breaks_off_in_the_middle_is_an_error(mesh: Mesh) -> None:
    mesh.providers["openai"].behave = Behaviour(reset_after=2)
    cut = ("answers_cut_total", {"policy": CODE, "model": "openai/gpt-4o", "arm": "baseline"})
    counted = await counting(mesh, ANSWERS, cut, ERRORS)
    with pytest.raises(aiohttp.ClientPayloadError):
        await mesh.ask(CODING, stream=True)
    await counted.reaches(1, ERRORS[0], **ERRORS[1])
    await counted.reaches(1, cut[0], **cut[1])
    assert await counted.of(ANSWERS[0], **ANSWERS[1]) == 1


async def test_a_client_that_leaves_is_no_error(mesh: Mesh) -> None:
    hold = asyncio.Event()
    mesh.providers["openai"].behave = Behaviour(hold=hold)
    cut = ("answers_cut_total", {"policy": CODE})
    counted = await counting(mesh, cut, ERRORS)
    url = f"{mesh.stack.url}/v1/chat/completions"
    async with mesh.http.post(url, json=chat(CODING, stream=True), headers=CLIENT_HEADERS) as answer:
        await answer.content.readuntil(b"\n\n")
        answer.close()
    hold.set()
    await counted.reaches(1, cut[0], **cut[1])
    assert await counted.of(ERRORS[0], **ERRORS[1]) == 0


async def test_providers_see_no_more_of_our_headers_than_envoy_needs_there_and_none_of_a_clients(
    mesh: Mesh,
) -> None:
    forged = [*headers.DECISION, headers.TRY_ARM, headers.TRY_KEY]
    async with both_copies_compared(mesh):
        await mesh.send(chat(TRAVELLING), headers=[(name, "forged") for name in forged])
    assert mesh.counts() == {"openai": 2, "next": 1}
    primary, noise = mesh.providers["openai"].seen
    if headers.MODEL not in primary.headers:
        primary, noise = noise, primary
    needed = {"shadow", "noise", "observe", "model", "policy", "arm", "bucket", "reason"}
    assert ours_in(primary) == {f"x-arch-{name}" for name in needed}
    for copy in (noise, mesh.providers["next"].seen[0]):
        assert not ours_in(copy)
        assert "x-forwarded-for" not in copy.headers
    await mesh.send(b"not json", headers=[(name, "forged") for name in forged])
    undecided = mesh.providers["openai"].seen[-1]
    assert ours_in(undecided) == {"x-arch-model", "x-arch-reason"}
    assert not any("forged" in seen.headers.values() for seen in (primary, noise, undecided))


def ours_in(seen: Seen) -> set[str]:
    return {name.lower() for name in seen.headers if name.lower().startswith("x-arch-")}


async def test_a_sampled_request_gets_a_copy_and_its_own_model_another(mesh: Mesh) -> None:
    async with both_copies_compared(mesh):
        await mesh.ask(TRAVELLING)
    assert mesh.counts() == {"openai": 2, "next": 1}
    own, other = mesh.providers["openai"].seen
    assert own.model == other.model == "gpt-4o"
    assert own.headers.getall("authorization") == other.headers.getall("authorization")


@pytest.mark.parametrize("stream", [False, True])
async def test_copies_are_compared_with_the_primary(mesh: Mesh, stream: bool) -> None:
    before = sum(total["pairs"] for total in (await shadows(mesh, "travel planning")).values())
    mesh.providers["openai"].behave = Behaviour(text="Take the train to Quarzklee.")
    mesh.providers["next"].behave = Behaviour(text="You had better fly to Quarzklee.")
    counted = await counting(
        mesh, ("comparison_results_total", {"role": "noise", "measure": "exact", "result": "true"})
    )
    assert (await mesh.ask(TRAVELLING, stream=stream)).status == 200
    totals = await pairs_of(mesh, "travel planning", before + 2)
    assert await counted.of("comparison_results_total", role="noise", measure="exact", result="true") == 1
    assert (totals["noise"]["exact"], totals["shadow"]["exact"]) == (1.0, 0.0)
    assert 0.0 < totals["shadow"]["similarity"] < totals["noise"]["similarity"] <= 1.0
    async with mesh.http.get(f"{mesh.stack.admin_url}/shadows") as answer:
        shown = await answer.text()
    assert "Quarzklee" not in shown
    assert '"vllm/next"' in shown


async def test_a_shadow_that_hangs_gets_no_more_copies_than_its_bound_and_costs_the_client_nothing(
    mesh: Mesh,
) -> None:
    refused = ("shadow_copies_refused_total", {"policy": "creative writing", "reason": "concurrent"})
    counted = await counting(mesh, refused)

    async def seconds_per_request(text: str) -> float:
        started = time.perf_counter()
        replies = [await mesh.ask(text, session=f"{text} {number}") for number in range(30)]
        assert {reply.status for reply in replies} == {200}
        return (time.perf_counter() - started) / len(replies)

    await seconds_per_request(LEGAL)
    without = await seconds_per_request(LEGAL)
    mesh.providers["next"].behave = Behaviour(delay_s=3600)
    hanging = await seconds_per_request(WRITING)
    LOGGER.info("a request with a hanging shadow takes %.2f of its time without one", hanging / without)
    assert len(mesh.providers["next"].seen) == 3
    assert await mesh.counted("arch_ext_proc_shadow_copies_in_flight") == 3
    assert await counted.of(refused[0], **refused[1]) == 27


async def test_a_large_request_and_one_too_many_in_a_minute_get_no_copy(mesh: Mesh) -> None:
    large = ("shadow_copies_refused_total", {"reason": "body"})
    often = ("shadow_copies_refused_total", {"reason": "rate"})
    counted = await counting(mesh, large, often)
    assert (await mesh.ask(WRITING, padding="x" * 9_000)).status == 200
    assert await counted.of(large[0], **large[1]) == 1
    for number in range(4):
        assert (await mesh.ask(SUPPORT, session=str(number))).policy == "customer support"
    assert await counted.of(often[0], **often[1]) == 2
    await eventually(lambda: len(mesh.providers["next"].seen) == 2, "two copies")


async def test_a_request_that_goes_on_with_what_the_provider_keeps_is_not_copied(mesh: Mesh) -> None:
    stateful = ("shadow_copies_refused_total", {"reason": "stateful"})
    counted = await counting(mesh, stateful)
    body = {"model": "m", "input": TRAVELLING, "previous_response_id": "resp_1"}
    assert (await mesh.send(body, "/v1/responses")).policy == "travel planning"
    assert await counted.of(stateful[0], **stateful[1]) == 1
    assert mesh.counts() == {"openai": 1}
