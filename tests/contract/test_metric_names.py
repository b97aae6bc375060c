"""No series gets a name of a client's: whoever may open a stream cannot fill the server's memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import orjson
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ext_proc.core import headers
from ext_proc.core.types import Message, Policy, Snapshot, Verdict
from ext_proc.server.breaks import BreakLog
from ext_proc.server.observing import Observing
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry
from tests.support.builders import a_route, a_shadow, a_snapshot, a_target

SMALL, LARGE, NEXT = a_target("openai/small"), a_target("vllm/large"), a_target("next/model")
SNAPSHOT = a_snapshot(SMALL, (a_route(LARGE, NEXT, shadows=(a_shadow(NEXT),)),))
NAMED = {
    "policy": {"", "coding", "(inline)", "(other)"},
    "model": {"", "openai/small", "vllm/large", "next/model", "(other)"},
    "arm": {"", "baseline", "canary", "(other)"},
}
MOST_SERIES = 1_500
"""More than what the names above and the enums make together, and fewer than the names invented."""

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ROLES = st.sampled_from(["route", "shadow", "observe", "attempt", "", "nonsense"])
NAMES = (*headers.DECISION, headers.ATTEMPT, headers.TRY_ARM, "x-arch-session", "x-request-id")


class FirstOf:
    """A router that finds the first policy right, whoever wrote it."""

    async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
        return Verdict(policies[0].name, tuple((policy.name, 1.0) for policy in policies))


class Context:
    def __init__(self, messages: list[Any], *metadata: tuple[str, str]) -> None:
        self._messages = messages
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def read(self) -> Any:
        return self._messages.pop(0) if self._messages else grpc.aio.EOF

    async def write(self, data: bytes) -> None:
        """Nobody reads it."""


class Bench:
    """A server that is sent what a hostile peer may send, and what it counted."""

    def __init__(self) -> None:
        self.snapshot: Snapshot = SNAPSHOT
        self.telemetry = Telemetry()
        self.observing = Observing(self.telemetry, [self.telemetry.answers])
        live = lambda: Live(self.snapshot, FirstOf(), 1 << 20)  # noqa: E731
        self.servicer = Servicer(live, self.telemetry, self.observing)

    async def send(self, word: str, role: str) -> None:
        values = {
            **dict.fromkeys(NAMES, word),
            ":method": "POST",
            ":path": "/v1/chat/completions",
            "content-type": "application/json",
        }
        asked, sent, answered, ended = (pb.ProcessingRequest() for _ in range(4))
        for key, value in values.items():
            asked.request_headers.headers.headers.add(key=key, raw_value=value.encode())
        policies = [{"name": word, "description": word, "models": ["vllm/large"]}]
        call = {"model": word, "messages": [{"role": "user", "content": word}]}
        sent.request_body.body = orjson.dumps({**call, "routing_preferences": policies})
        for key, value in {":status": "200", headers.MODEL: word}.items():
            answered.response_headers.headers.headers.add(key=key, raw_value=value.encode())
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        ended.response_body.body = orjson.dumps({"choices": [], "usage": usage})
        ended.response_body.end_of_stream = True
        context = Context(
            [asked, sent, answered, ended], (headers.ROLE, role or word), (headers.TARGET, word)
        )
        await self.servicer.process(None, context)
        await self._log(word)

    async def _log(self, word: str) -> None:
        message = als_pb2.StreamAccessLogsMessage()
        entry = message.http_logs.log_entry.add()
        for name in headers.LOGGED_OF_BREAKS:
            entry.request.request_headers[name] = word
        await BreakLog(self.observing).stream(None, Context([message]))

    def series(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.telemetry.exposition().decode())
            for sample in family.samples
        }


BENCH = Bench()


@given(words=st.lists(st.tuples(WORDS, ROLES), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_peers_invent_makes_no_series(words: list[tuple[str, str]]) -> None:
    async def send_all() -> None:
        for word, role in words:
            await BENCH.send(word, role)

    asyncio.run(send_all())
    series = BENCH.series()
    assert len(series) < MOST_SERIES
    for _, labels in series:
        for label, value in labels:
            assert value in NAMED.get(label, {value}), (label, value)


async def test_what_clients_name_is_counted_under_one_name() -> None:
    bench = Bench()
    for number in range(50):
        await bench.send(f"invented {number}", "route")
        await bench.send(f"invented {number}", "observe")
    # One more names its policy as the file does, and is still no request of the file's policy.
    await bench.send("coding", "route")
    decided = {
        dict(labels)["policy"]: value
        for (name, labels), value in bench.series().items()
        if name == "arch_ext_proc_decisions_total"
    }
    assert decided == {"(inline)": 51}
    seen = [
        (dict(labels)["policy"], dict(labels)["model"], value)
        for (name, labels), value in bench.series().items()
        if name == "arch_ext_proc_answers_total"
    ]
    assert seen == [("(other)", "(other)", 50)]


async def test_what_a_reload_took_away_is_counted_no_more() -> None:
    bench = Bench()
    observed = "arch_ext_proc_answers_total"
    asked = pb.ProcessingRequest()
    for key, value in {headers.POLICY: "coding", headers.MODEL: "next/model", headers.OBSERVE: "p"}.items():
        asked.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    answered = pb.ProcessingRequest()
    answered.response_headers.headers.headers.add(key=":status", raw_value=b"200")
    answered.response_headers.end_of_stream = True
    stream = [asked, answered]
    await bench.servicer.process(None, Context(list(stream), (headers.ROLE, "observe")))
    assert {dict(labels)["model"] for name, labels in bench.series() if name == observed} == {"next/model"}
    bench.snapshot = a_snapshot(SMALL, (a_route(LARGE, policy="writing"),))
    assert not [name for name, _ in bench.series() if name == observed]
    # An answer that began before the reload comes late.
    await bench.servicer.process(None, Context(list(stream), (headers.ROLE, "observe")))
    assert {dict(labels)["model"] for name, labels in bench.series() if name == observed} == {"(other)"}


def shares(bench: Bench) -> dict[str, float]:
    return {
        dict(labels)["arm"]: value
        for (name, labels), value in bench.series().items()
        if name == "arch_ext_proc_split_share"
    }


def test_the_configured_share_is_that_of_the_weights_in_force() -> None:
    bench = Bench()
    assert shares(bench) == {"baseline": 0.5, "canary": 0.5}
    route = SNAPSHOT.routes["coding"]
    arms = tuple(
        replace(arm, weight_per_10k=weight) for arm, weight in zip(route.arms, (9_500, 500), strict=True)
    )
    bench.snapshot = replace(SNAPSHOT, routes={"coding": replace(route, arms=arms)})
    assert shares(bench) == {"baseline": 0.95, "canary": 0.05}


async def test_a_decision_that_envoy_did_not_wait_for_is_counted() -> None:
    class Never:
        async def ask(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Verdict:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

    reached = asyncio.Event()
    bench = Bench()
    servicer = Servicer(lambda: Live(SNAPSHOT, Never(), 1 << 20), bench.telemetry)
    asked, sent = pb.ProcessingRequest(), pb.ProcessingRequest()
    values = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}
    for key, value in values.items():
        asked.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    sent.request_body.body = b'{"messages":[{"role":"user","content":"hello"}],"model":"gpt"}'
    task = asyncio.ensure_future(servicer.process(None, Context([asked, sent], (headers.ROLE, "route"))))
    await reached.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert bench.series()["arch_ext_proc_streams_abandoned_total", frozenset()] == 1
    assert bench.series()["arch_ext_proc_streams_in_flight", frozenset()] == 0
