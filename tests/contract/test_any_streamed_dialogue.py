"""Whatever Envoy sends of a streamed body: headers first, every byte once, one end, and never an error."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ext_proc.core import inline, rewrite, spans
from ext_proc.core.parse import load_object
from ext_proc.core.splicing import ModelSplice
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry
from tests.contract.test_any_dialogue import PATHS, ROLES
from tests.contract.test_process import BODY, SNAPSHOT, FakeAsker, headers
from tests.contract.test_streamed import piece, streamed, trailers

WINDOW = 48
PIECES = st.sampled_from(
    [
        BODY[:30],
        BODY[30:],
        BODY,
        b"",
        b"{}",
        b"{bad",
        b'{"model":"x',
        b'","a":[1]}',
        b'{"routing_preferences":[]}',
    ]
) | st.binary(max_size=60)
RESPONSE_PARTS = ("response_headers", "response_body", "response_trailers")


class Stream:
    """Gives the servicer one message at a time; `asked` is set while it waits for the next one."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self.asked = asyncio.Event()
        self.answers: list[Any] = []

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def read(self) -> Any:
        self.asked.set()
        return await self._sent.get()

    async def write(self, data: bytes) -> None:
        self.answers.append(pb.ProcessingResponse.FromString(data))

    def give(self, message: Any) -> None:
        self.asked.clear()
        self._sent.put_nowait(message)


class AnyStreamedDialogue(RuleBasedStateMachine):
    """Plays Envoy, well behaved or not, and keeps the books of one request's bytes."""

    @initialize(metadata=ROLES, begins_well=st.sampled_from([True, True, False]))
    def open(self, metadata: tuple[tuple[str, str], ...], begins_well: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.stream = Stream(metadata)
        self.received, self.forwarded = b"", b""
        self.began = self.has_ended = self.is_done = False
        self.kinds: list[str] = []
        live = Live(SNAPSHOT, FakeAsker(), 1 << 20, window_bytes=WINDOW)
        self.task = self.loop.create_task(Servicer(lambda: live, Telemetry()).process(None, self.stream))
        # What a stream is, its first message tells.
        self.exchange(streamed(headers() if begins_well else headers("PUT", "/files")))
        self.began = True

    @rule(method=st.sampled_from(["POST", "GET"]), path=PATHS)
    def send_headers_again(self, method: str, path: str) -> None:
        before = len(self.stream.answers)
        self.exchange(headers(method, path))
        assert len(self.stream.answers) == before

    @rule(data=PIECES, ends=st.sampled_from([False, False, True]))
    def send_piece(self, data: bytes, ends: bool) -> None:
        if not self.has_ended:
            self.received += data
            self.has_ended = ends
        self.exchange(piece(data, ends=ends))

    @rule()
    def send_trailers(self) -> None:
        self.has_ended = True
        self.exchange(trailers())

    @rule()
    def send_what_has_no_name(self) -> None:
        before = len(self.stream.answers)
        self.exchange(pb.ProcessingRequest())
        assert len(self.stream.answers) == before

    @rule(name=st.sampled_from(RESPONSE_PARTS))
    def send_a_part_of_the_answer(self, name: str) -> None:
        message = pb.ProcessingRequest()
        getattr(message, name).SetInParent()
        before = len(self.stream.answers)
        self.exchange(message)
        assert [answer.WhichOneof("response") for answer in self.stream.answers[before:]] == [name]

    def exchange(self, message: Any) -> None:
        """Send one message, and look at what comes of it once the servicer wants the next."""
        before = len(self.stream.answers)
        self.stream.give(message)
        self.loop.run_until_complete(asyncio.wait_for(self.stream.asked.wait(), 60))
        for answer in self.stream.answers[before:]:
            self.take(answer)

    def take(self, answer: Any) -> None:
        kind = answer.WhichOneof("response")
        if kind in RESPONSE_PARTS:
            return
        assert not self.is_done, "nothing about a request follows its end"
        assert (kind in ("request_headers", "immediate_response")) == (not self.kinds)
        self.kinds.append(kind)
        if kind == "request_body":
            sent = answer.request_body.response.body_mutation.streamed_response
            self.forwarded += sent.body
            self.is_done = sent.end_of_stream
        elif kind in ("request_trailers", "immediate_response"):
            self.is_done = True

    @invariant()
    def no_more_is_held_than_the_window(self) -> None:
        if hasattr(self, "task") and not self.kinds:
            assert len(self.received) <= WINDOW
            assert not self.has_ended

    @invariant()
    def the_stream_goes_on_and_its_end_is_told_once(self) -> None:
        if hasattr(self, "task"):
            assert not self.task.done()
            assert not self.has_ended or self.is_done

    @invariant()
    def every_byte_of_a_request_that_has_ended_went_on_as_one_of_the_ways_to_edit_it(self) -> None:
        if hasattr(self, "task") and self.is_done and "immediate_response" not in self.kinds:
            assert self.forwarded in ways_to_edit(self.received)

    def teardown(self) -> None:
        if hasattr(self, "task"):
            self.stream.give(grpc.aio.EOF)
            self.loop.run_until_complete(self.task)
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


def ways_to_edit(body: bytes) -> set[bytes]:
    """Not at all, for the target as a whole, or for the target as it passes."""
    ways = {body}
    for model in ("small", "large"):
        ways.add(ModelSplice(model).feed(body))
        if isinstance(load_object(body), dict):
            ways.add(rewrite.set_model(spans.apply(body, inline.removals(body)), model))
    return ways


TestAnyStreamedDialogue = AnyStreamedDialogue.TestCase
TestAnyStreamedDialogue.settings = settings(
    max_examples=60,
    stateful_step_count=12,
    deadline=None,  # a busy machine is no bug
    suppress_health_check=[HealthCheck.too_slow],
)
