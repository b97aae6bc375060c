"""Whatever Envoy sends, in whatever order: one answer per message, about the same part, never an error."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry
from tests.contract.test_process import BODY, SNAPSHOT, FakeAsker, body, headers

OTHERS = ("request_trailers", "response_headers", "response_body", "response_trailers")
PATHS = st.sampled_from(["/v1/chat/completions", "/v1/messages?a=b", "/v1/embeddings", "/v1/models"])
BODIES = st.sampled_from(
    [BODY, b"", b"{}", b"{bad", b"[]", BODY.replace(b"pl4nted", b"break"), b'{"routing_preferences":[]}']
) | st.binary(max_size=30)
ROLES = st.sampled_from(
    [
        (),
        (("x-arch-role", "route"),),
        (("x-arch-role", "shadow"), ("x-arch-target", "openai/large")),
        (("x-arch-role", "shadow"),),
        (("x-arch-role", "attempt"),),
        (("x-arch-role", "nonsense"),),
    ]
)


class Stream:
    """A stream that gives the servicer one message at a time, and what it wrote back."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.is_waiting = False

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def read(self) -> Any:
        self.is_waiting = self.sent.empty()
        message = await self.sent.get()
        self.is_waiting = False
        return message

    async def write(self, data: bytes) -> None:
        await self.answers.put(pb.ProcessingResponse.FromString(data))


class AnyDialogue(RuleBasedStateMachine):
    """Plays Envoy, well behaved or not."""

    @initialize(metadata=ROLES, begins_well=st.sampled_from([True, True, False]))
    def open(self, metadata: tuple[tuple[str, str], ...], begins_well: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.stream = Stream(metadata)
        self.may_be_refused = bool({("x-arch-role", "shadow"), ("x-arch-role", "attempt")} & set(metadata))
        self.decided = 0
        servicer = Servicer(lambda: Live(SNAPSHOT, FakeAsker(), 1 << 20), Telemetry())
        self.task = self.loop.create_task(servicer.process(None, self.stream))
        if begins_well:
            self.exchange(headers(), "request_headers")

    @rule(
        method=st.sampled_from(["POST", "POST", "POST", "GET"]),
        path=PATHS,
        ends=st.booleans(),
        encoding=st.sampled_from(["", "", "gzip"]),
    )
    def send_headers(self, method: str, path: str, ends: bool, encoding: str) -> None:
        message = headers(method, path, content_encoding=encoding)
        message.request_headers.end_of_stream = ends
        self.exchange(message, "request_headers")

    @rule(data=BODIES)
    def send_body(self, data: bytes) -> None:
        self.exchange(body(data), "request_body")

    @rule(name=st.sampled_from(OTHERS))
    def send_another_part(self, name: str) -> None:
        message = pb.ProcessingRequest()
        getattr(message, name).SetInParent()
        answer = self.exchange(message, name)
        assert answer == pb.ProcessingResponse(**{name: getattr(answer, name)})
        assert not getattr(answer, name).ListFields()

    def exchange(self, message: Any, part: str) -> Any:
        """Send one message: exactly one answer comes, about this part (or a copy or an attempt ends)."""
        self.stream.sent.put_nowait(message)
        answer = self.loop.run_until_complete(asyncio.wait_for(self.stream.answers.get(), 60))
        kind = answer.WhichOneof("response")
        assert kind == part or (self.may_be_refused and kind == "immediate_response")
        if part.startswith("request_") and kind != "immediate_response" and part != "request_trailers":
            self.check(getattr(answer, part).response)
        return answer

    def check(self, common: Any) -> None:
        """A request is decided once; a new body and its length go together."""
        changed = {
            option.header.key: option.header.raw_value for option in common.header_mutation.set_headers
        }
        self.decided += bool(changed)
        assert self.decided <= 1
        assert ("content-length" in changed) == common.HasField("body_mutation")
        if "content-length" in changed:
            assert int(changed["content-length"]) == len(common.body_mutation.body)
        assert common.clear_route_cache == ("x-arch-cluster" in changed)

    @invariant()
    def nothing_is_left_over(self) -> None:
        if hasattr(self, "task"):
            assert self.stream.answers.empty()
            assert not self.task.done()

    def teardown(self) -> None:
        if hasattr(self, "task"):
            self.stream.sent.put_nowait(grpc.aio.EOF)
            self.loop.run_until_complete(self.task)
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            assert self.stream.answers.empty()


TestAnyDialogue = AnyDialogue.TestCase
TestAnyDialogue.settings = settings(
    max_examples=50,
    stateful_step_count=10,
    deadline=None,  # a busy machine is no bug
    suppress_health_check=[HealthCheck.too_slow],
)
