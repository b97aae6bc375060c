"""Hooks and external metrics against a real HTTP server: what each answer means, and that none hurts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from demo.processes import free_port
from ext_proc.core.rollout_plan import Answer, CheckResult, CheckVerdict, Hook
from ext_proc.core.rollout_settings import Endpoint, PrometheusCheck, WebhookCheck
from ext_proc.core.types import Secret
from ext_proc.rollouts import outside as outside_module
from ext_proc.rollouts.outside import Outside
from ext_proc.telemetry.rollouts import RolloutTelemetry
from tests.support.answering import Answering, answering

PASS, FAIL, INCONCLUSIVE = CheckVerdict.PASS, CheckVerdict.FAIL, CheckVerdict.INCONCLUSIVE
TOKEN = "the-token"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Answering]:
    async with answering() as server:
        yield server


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest_asyncio.fixture
async def outside(registry: CollectorRegistry) -> AsyncIterator[Outside]:
    outside = Outside(RolloutTelemetry(registry))
    yield outside
    await outside.close()


def at(url: str, timeout_s: float = 30.0) -> Endpoint:
    return Endpoint(Secret(url), Secret(TOKEN), timeout_s)


@pytest.mark.parametrize(
    ("hook", "statuses", "answer"),
    [
        (Hook.CONFIRM_ROLLOUT, [200], Answer.APPROVED),
        (Hook.CONFIRM_ROLLOUT, [202, 204], Answer.APPROVED),
        (Hook.CONFIRM_ROLLOUT, [200, 503], Answer.PENDING),
        (Hook.CONFIRM_ROLLOUT, [302], Answer.PENDING),
        (Hook.CONFIRM_ROLLOUT, [200, 403], Answer.DENIED),
        (Hook.CONFIRM_PROMOTION, [404], Answer.PENDING),
        (Hook.ROLLBACK, [503, 200], Answer.APPROVED),
        (Hook.ROLLBACK, [403, 500], Answer.PENDING),
    ],
)
async def test_what_a_hook_answers(
    outside: Outside, server: Answering, hook: Hook, statuses: list[int], answer: Answer
) -> None:
    server.statuses = dict(zip(("/0", "/1"), statuses, strict=False))
    endpoints = tuple(at(server.url + path) for path in server.statuses)
    assert await outside.ask(hook, endpoints, {"policy": "coding"}) is answer


async def test_a_hook_is_told_what_it_is_asked_about(outside: Outside, server: Answering) -> None:
    await outside.ask(Hook.CONFIRM_ROLLOUT, (at(server.url + "/gate"),), {"policy": "coding", "weight": 5})
    ((path, headers, body),) = server.seen
    assert (path, body) == ("/gate", b'{"policy": "coding", "weight": 5}')
    assert headers["Authorization"] == f"Bearer {TOKEN}"


async def test_nobody_there_is_no_answer_yet(outside: Outside, registry: CollectorRegistry) -> None:
    endpoint = at(f"http://127.0.0.1:{free_port()}/the-secret-path")
    assert await outside.ask(Hook.CONFIRM_ROLLOUT, (endpoint,), {}) is Answer.PENDING
    labels = {"hook": "confirm-rollout", "answer": "failed"}
    assert registry.get_sample_value("arch_ext_proc_rollout_hook_calls_total", labels) == 1


async def test_a_hook_that_hangs_is_no_answer_yet(outside: Outside, server: Answering) -> None:
    server.delay_s = 60.0
    assert await outside.ask(Hook.ROLLBACK, (at(server.url, 0.05),), {}) is Answer.PENDING


@pytest.mark.parametrize(
    ("status", "content", "result"),
    [
        (200, {"verdict": "pass"}, CheckResult(PASS)),
        (200, {"verdict": "fail", "detail": "worse"}, CheckResult(FAIL, "worse")),
        (200, {"verdict": "inconclusive"}, CheckResult(INCONCLUSIVE)),
        (200, {"score": 0.7}, CheckResult(PASS, "score 0.7 (min 0.7)")),
        (200, {"score": 0.69, "detail": "of 10"}, CheckResult(FAIL, "score 0.69 (min 0.7) of 10")),
        (
            200,
            {"score": "high"},
            CheckResult(INCONCLUSIVE, "the webhook gave no verdict and no score to judge"),
        ),
        (
            200,
            {"score": True},
            CheckResult(INCONCLUSIVE, "the webhook gave no verdict and no score to judge"),
        ),
        (200, [], CheckResult(INCONCLUSIVE, "the webhook's answer is no JSON object")),
        (200, b"<html>", CheckResult(INCONCLUSIVE, "the webhook's answer is no JSON object")),
        (500, {"verdict": "fail"}, CheckResult(INCONCLUSIVE, "the webhook answered 500")),
    ],
)
async def test_what_an_evaluation_webhook_answers(
    outside: Outside, server: Answering, status: int, content: Any, result: CheckResult
) -> None:
    server.status, server.content = status, content
    assert await outside.check(WebhookCheck("evals", at(server.url), 0.7), {"policy": "coding"}) == result


def vector(*values: str) -> dict[str, Any]:
    return {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, value]} for value in values]},
    }


@pytest.mark.parametrize(
    ("status", "content", "result"),
    [
        (200, vector("0.9"), CheckResult(PASS, "0.9 (min 0.8, max 1)")),
        (200, vector("0.9", "0.7"), CheckResult(FAIL, "0.9, 0.7 (min 0.8, max 1)")),
        (200, vector("1.5"), CheckResult(FAIL, "1.5 (min 0.8, max 1)")),
        (
            200,
            {"data": {"resultType": "scalar", "result": [0, "0.8"]}},
            CheckResult(PASS, "0.8 (min 0.8, max 1)"),
        ),
        (200, vector(), CheckResult(INCONCLUSIVE, "the query gave no value")),
        (200, vector("NaN"), CheckResult(INCONCLUSIVE, "the query gave no value")),
        (200, {"data": {}}, CheckResult(INCONCLUSIVE, "Prometheus' answer cannot be read")),
        (200, b"not JSON", CheckResult(INCONCLUSIVE, "Prometheus' answer cannot be read")),
        (400, {"error": "parse error"}, CheckResult(INCONCLUSIVE, "Prometheus answered 400")),
    ],
)
async def test_what_prometheus_answers(
    outside: Outside, server: Answering, status: int, content: Any, result: CheckResult
) -> None:
    server.status, server.content = status, content
    check = PrometheusCheck("users", at(server.url + "/prom/"), 'avg(x{a="b"})', 0.8, 1.0)
    assert await outside.check(check, {}) == result
    assert server.seen[0][0] == "/prom/api/v1/query?query=avg(x%7Ba%3D%22b%22%7D)"


async def test_a_check_that_hangs_is_inconclusive(outside: Outside, server: Answering) -> None:
    server.delay_s = 60.0
    found = await outside.check(WebhookCheck("evals", at(server.url, 0.05), None), {})
    assert found == CheckResult(INCONCLUSIVE, "no answer within 0.05 s")


async def test_an_endless_answer_is_cut_off(outside: Outside, server: Answering) -> None:
    server.content = b"[" * (10 * outside_module.MAX_ANSWER_BYTES)
    found = await outside.check(WebhookCheck("evals", at(server.url), None), {})
    assert found.verdict is INCONCLUSIVE


async def test_an_event_is_told_in_the_background(
    outside: Outside, server: Answering, registry: CollectorRegistry
) -> None:
    outside.tell((at(server.url + "/events"),), '{"cause": "hard_limit"}')
    labels = {"hook": "event", "answer": "delivered"}
    async with asyncio.timeout(30):
        while registry.get_sample_value("arch_ext_proc_rollout_hook_calls_total", labels) != 1:
            await asyncio.sleep(0.01)
    assert server.seen[0][2] == b'{"cause": "hard_limit"}'


async def test_events_that_nobody_takes_are_bounded(
    outside: Outside, server: Answering, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_module, "MAX_WAITING", 2)
    server.delay_s = 60.0
    for _ in range(5):
        outside.tell((at(server.url),), "{}")
    labels = {"hook": "event", "answer": "dropped"}
    assert registry.get_sample_value("arch_ext_proc_rollout_hook_calls_total", labels) == 3
