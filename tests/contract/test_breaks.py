"""Envoy's log of answers that were broken off: protobuf in, observations out."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from envoy.service.accesslog.v3 import als_pb2

from ext_proc.core.observation import Observation, Role
from ext_proc.server import wire
from ext_proc.server.breaks import BreakLog
from ext_proc.server.observing import Observing
from ext_proc.telemetry import Telemetry
from tests.support.builders import a_route, a_snapshot, a_target

SNAPSHOT = a_snapshot(routes=(a_route(a_target(), a_target("next/model")),))

ASKED = {
    "x-arch-observe": "pair",
    "x-arch-policy": "coding",
    "x-arch-model": "openai/large",
    "x-arch-arm": "canary",
    "x-arch-bucket": "17",
}


class Sink:
    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.fails = False

    def observed(self, observation: Observation) -> None:
        if self.fails:
            raise ZeroDivisionError
        self.seen.append(observation)


class Stream:
    """A stream of logs: what was sent, then its end, or nothing more for ever."""

    def __init__(self, *messages: Any, ends: bool = True) -> None:
        self._messages = list(messages)
        self._ends = ends
        self.waits = asyncio.Event()

    async def read(self) -> Any:
        if self._messages:
            return self._messages.pop(0)
        if not self._ends:
            self.waits.set()
            await asyncio.Event().wait()
        return grpc.aio.EOF


def a_log(*entries: tuple[dict[str, str], str], attempts: str = "") -> Any:
    """Entries by their request's headers and the answer's model. `attempts`: they went to a chain."""
    message = als_pb2.StreamAccessLogsMessage()
    for asked, model in entries:
        entry = message.http_logs.log_entry.add()
        entry.request.request_id = "id"
        entry.request.request_headers.update(asked)
        entry.response.response_code.value = 200
        entry.common_properties.duration.FromNanoseconds(1_500_000_000)
        if model:
            entry.response.response_headers["x-arch-model"] = model
        if attempts:
            entry.response.response_headers["x-arch-attempts"] = attempts
    return wire.deserialize_logs(message.SerializeToString())


async def test_an_entry_amends_the_observation_of_its_answer() -> None:
    sink, telemetry = Sink(), Telemetry()
    telemetry.follow(lambda: SNAPSHOT)
    log = BreakLog(Observing(telemetry, [sink]))
    end = await log.stream(None, Stream(a_log((ASKED, "next/model")), a_log(({}, ""))))
    assert als_pb2.StreamAccessLogsResponse.FromString(end) == als_pb2.StreamAccessLogsResponse()
    one, bare = sink.seen
    assert (one.request_id, one.policy, one.arm, one.bucket) == ("id", "coding", "canary", 17)
    assert (one.target, one.role, one.status, one.latency_s) == ("next/model", Role.PRIMARY, 200, 1.5)
    assert (one.amends, one.is_error, one.fallback) == (True, True, False)
    assert (bare.target, bare.policy, bare.bucket) == ("", "", None)


@pytest.mark.parametrize(("mark", "attempts"), [({"x-arch-written-for": "openai/large"}, "1"), ({}, "2")])
async def test_the_mark_of_the_first_choice_tells_a_fallback(mark: dict[str, str], attempts: str) -> None:
    """An attempt elsewhere changes the model in the request too, so that one cannot tell."""
    sink, telemetry = Sink(), Telemetry()
    telemetry.follow(lambda: SNAPSHOT)
    asked = {**ASKED, **mark}
    await BreakLog(Observing(telemetry, [sink])).stream(
        None, Stream(a_log((asked, "openai/large"), attempts=attempts))
    )
    assert [one.fallback for one in sink.seen] == [not mark]


async def test_a_sink_that_fails_ends_no_stream() -> None:
    sink, telemetry = Sink(), Telemetry()
    sink.fails = True
    await BreakLog(Observing(telemetry, [sink])).stream(None, Stream(a_log((ASKED, "")), a_log((ASKED, ""))))
    assert telemetry.registry.get_sample_value("arch_ext_proc_stream_errors_total", {"kind": "bug"}) == 2


async def test_a_server_that_ends_waits_for_no_stream() -> None:
    log, stream = BreakLog(Observing(Telemetry())), Stream(ends=False)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(log.stream(None, stream))
        await stream.waits.wait()
        log.close()
    assert task.cancelled()
