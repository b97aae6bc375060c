"""Hooks, external metrics and event listeners over HTTP. Nothing here raises, and every call is bounded."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

from ext_proc.core.rollout_plan import Answer, CheckResult, CheckVerdict, Hook
from ext_proc.core.rollout_settings import Check, Endpoint, PrometheusCheck, WebhookCheck
from ext_proc.telemetry.rollouts import RolloutTelemetry
from ext_proc.telemetry.tasks import spawn

MAX_ANSWER_BYTES = 64 << 10
MAX_WAITING = 100
TRIES = 3
DETAIL_CHARS = 200

Payload = Mapping[str, Any]


class _NoAnswer(Exception):
    """The endpoint did not answer as it should. The text is for people and names no URL."""


class Outside:
    """One HTTP client for everything that rollouts ask and tell. Use on one event loop."""

    def __init__(self, telemetry: RolloutTelemetry) -> None:
        self._telemetry = telemetry
        self._client: aiohttp.ClientSession | None = None
        self._telling: set[asyncio.Task[None]] = set()

    async def ask(self, hook: Hook, endpoints: tuple[Endpoint, ...], payload: Payload) -> Answer:
        """Ask every endpoint of a hook.

        200 to 299 approves and 403 denies, anything else is no answer yet. All must approve; for the
        rollback hook one that does is enough.
        """
        answers = await asyncio.gather(*(self._ask(hook, endpoint, payload) for endpoint in endpoints))
        if hook is Hook.ROLLBACK:
            return Answer.APPROVED if Answer.APPROVED in answers else Answer.PENDING
        if Answer.DENIED in answers:
            return Answer.DENIED
        return Answer.APPROVED if all(answer is Answer.APPROVED for answer in answers) else Answer.PENDING

    async def check(self, check: Check, payload: Payload) -> CheckResult:
        """One answer of an external metric. One that cannot be had or read is inconclusive."""
        try:
            match check:
                case PrometheusCheck():
                    result = _of_prometheus(check, await self._query(check))
                case WebhookCheck():
                    status, body = await self._call(check.endpoint, "POST", json=payload)
                    result = _of_webhook(check, status, body)
        except _NoAnswer as error:
            result = CheckResult(CheckVerdict.INCONCLUSIVE, str(error))
        self._telemetry.checked(check.name, result.verdict)
        return result

    def tell(self, endpoints: tuple[Endpoint, ...], event: str) -> None:
        """Send an event, which is JSON text, to its listeners, in the background."""
        for endpoint in endpoints:
            if len(self._telling) >= MAX_WAITING:
                self._telemetry.hooked("event", "dropped")
                continue
            task = spawn(self._tell(endpoint, event), "rollout event")
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Give what is being told a moment, then end it."""
        if self._telling:
            _, late = await asyncio.wait(self._telling, timeout=1.0)
            for task in late:
                task.cancel()
        if self._client is not None:
            await self._client.close()

    async def _ask(self, hook: Hook, endpoint: Endpoint, payload: Payload) -> Answer:
        try:
            status, _ = await self._call(endpoint, "POST", json=payload)
        except _NoAnswer:
            status = 0
        if 200 <= status < 300:
            answer = Answer.APPROVED
        else:
            answer = Answer.DENIED if status == 403 else Answer.PENDING
        self._telemetry.hooked(hook.value, answer.value if status else "failed")
        return answer

    async def _tell(self, endpoint: Endpoint, event: str) -> None:
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(2.0**attempt)
            try:
                status, _ = await self._call(endpoint, "POST", data=event.encode())
            except _NoAnswer:
                continue
            if status < 500:
                self._telemetry.hooked("event", "delivered" if status < 300 else "refused")
                return
        self._telemetry.hooked("event", "failed")

    async def _query(self, check: PrometheusCheck) -> bytes:
        url = check.endpoint.url.reveal().rstrip("/") + "/api/v1/query"
        status, body = await self._call(check.endpoint, "GET", url=url, params={"query": check.query})
        if status != 200:
            raise _NoAnswer(f"Prometheus answered {status}")
        return body

    async def _call(
        self, endpoint: Endpoint, method: str, *, url: str | None = None, **options: Any
    ) -> tuple[int, bytes]:
        """Status and body. Errors: _NoAnswer."""
        if self._client is None:
            self._client = aiohttp.ClientSession()
        headers = {"content-type": "application/json"} if method == "POST" else {}
        if endpoint.token is not None:
            headers["authorization"] = f"Bearer {endpoint.token.reveal()}"
        try:
            async with (
                asyncio.timeout(endpoint.timeout_s),
                self._client.request(
                    method,
                    url or endpoint.url.reveal(),
                    headers=headers,
                    allow_redirects=False,
                    **options,
                ) as answer,
            ):
                body = await answer.content.read(MAX_ANSWER_BYTES)
                while len(body) < MAX_ANSWER_BYTES and (more := await answer.content.read(MAX_ANSWER_BYTES)):
                    body += more
                return answer.status, body
        except TimeoutError:
            raise _NoAnswer(f"no answer within {endpoint.timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _NoAnswer(type(error).__name__) from None


def _of_prometheus(check: PrometheusCheck, body: bytes) -> CheckResult:
    """Source: Prometheus' HTTP API, instant queries."""
    try:
        data = orjson.loads(body)["data"]
        samples = (
            [data["result"]] if data["resultType"] == "scalar" else [one["value"] for one in data["result"]]
        )
        values = [float(value) for _, value in samples]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return CheckResult(CheckVerdict.INCONCLUSIVE, "Prometheus' answer cannot be read")
    if not values or any(math.isnan(value) for value in values):
        return CheckResult(CheckVerdict.INCONCLUSIVE, "the query gave no value")
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("min", check.least), ("max", check.most))
        if bound is not None
    ]
    detail = f"{', '.join(f'{value:g}' for value in values[:4])} ({', '.join(bounds)})"
    within = all(
        (check.least is None or value >= check.least) and (check.most is None or value <= check.most)
        for value in values
    )
    return CheckResult(CheckVerdict.PASS if within else CheckVerdict.FAIL, detail)


def _of_webhook(check: WebhookCheck, status: int, body: bytes) -> CheckResult:
    """`{"verdict": "pass" | "fail" | "inconclusive"}` or `{"score": number}`, and `detail` if it likes."""
    if not 200 <= status < 300:
        return CheckResult(CheckVerdict.INCONCLUSIVE, f"the webhook answered {status}")
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        return CheckResult(CheckVerdict.INCONCLUSIVE, "the webhook's answer is no JSON object")
    detail = str(answer.get("detail", ""))[:DETAIL_CHARS]
    if answer.get("verdict") in set(CheckVerdict):
        return CheckResult(CheckVerdict(answer["verdict"]), detail)
    score = answer.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or check.least is None:
        return CheckResult(CheckVerdict.INCONCLUSIVE, "the webhook gave no verdict and no score to judge")
    passed = score >= check.least
    return CheckResult(
        CheckVerdict.PASS if passed else CheckVerdict.FAIL,
        f"score {score:g} (min {check.least:g}) {detail}".strip(),
    )
