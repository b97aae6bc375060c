"""Whatever Envoy shows the observe role, in whatever order: no answer, no error, one observation at most."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import grpc
import orjson
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ext_proc.server.observing import Observing
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry
from tests.contract.test_any_dialogue import Stream
from tests.contract.test_observing import ASKED, OBSERVE, SNAPSHOT, FakeAsker, Sink, message
from tests.support.answers import CHAT, CHAT_EVENTS, EVENTS, JSON, sse

WHOLE = (orjson.dumps(CHAT), sse(*CHAT_EVENTS), gzip.compress(orjson.dumps(CHAT)))
PIECES = (
    st.sampled_from([b"", b"data: ", b"data: [DONE]\n\n", b"\n", b"{", b'{"error":{}}', *WHOLE])
    | st.sampled_from(WHOLE).flatmap(lambda whole: st.integers(0, len(whole)).map(lambda at: whole[at:]))
    | st.binary(max_size=30)
)
NAMES = st.sampled_from(["", "0", "-1", "9" * 20, "\u0663", "openai/large", "x" * 300])
OF_NO_ACCOUNT = ("request_body", "request_trailers")


class AnyObservedAnswer(RuleBasedStateMachine):
    """Plays Envoy, well behaved or not, and knows what of it is an answer."""

    @initialize(is_ready=st.booleans())
    def open(self, is_ready: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.stream, self.sink, telemetry = Stream(OBSERVE), Sink(), Telemetry()
        self.telemetry = telemetry
        live = Live(SNAPSHOT, FakeAsker(), 1 << 20)
        servicer = Servicer(lambda: live, telemetry, Observing(telemetry, [self.sink], self.sink))
        self.task = self.loop.create_task(servicer.process(None, self.stream))
        self.is_asked, self.status, self.has_ended = False, 0, False
        self.has_begun = False
        if is_ready:
            self.send_request(dict(ASKED))
            self.send_headers("200", EVENTS, "", ends=False)

    @rule(named=st.fixed_dictionaries({}, optional=dict.fromkeys(ASKED, NAMES) | {"x-arch-shadow": NAMES}))
    def send_request(self, named: dict[str, str]) -> None:
        self.show(message("request_headers", named))
        if not self.has_ended:
            self.is_asked, self.has_begun = True, False

    @rule(
        status=st.sampled_from(["200", "200", "100", "103", "204", "429", "500", "", "0", "abc", "99999"]),
        kind=st.sampled_from([JSON, EVENTS, "", "text/html", "text/event-stream; charset=x"]),
        encoding=st.sampled_from(["", "", "gzip", "br", "nonsense", "gzip, gzip"]),
        ends=st.booleans(),
    )
    def send_headers(self, status: str, kind: str, encoding: str, ends: bool) -> None:
        values = {":status": status, "content-type": kind, "content-encoding": encoding}
        self.show(message("response_headers", values, end=ends))
        is_interim = status in ("100", "103")
        if self.is_asked and not self.has_ended and not is_interim:
            self.has_begun, self.has_ended = True, ends

    @rule(piece=PIECES, ends=st.sampled_from([False, False, False, True]))
    def send_piece(self, piece: bytes, ends: bool) -> None:
        self.show(message("response_body", body=piece, end=ends))
        self.has_ended = self.has_ended or (self.has_begun and ends)

    @rule()
    def send_trailers(self) -> None:
        sent = pb.ProcessingRequest()
        sent.response_trailers.SetInParent()
        self.show(sent)
        self.has_ended = self.has_ended or self.has_begun

    @rule(name=st.sampled_from(OF_NO_ACCOUNT))
    def send_another_part(self, name: str) -> None:
        sent = pb.ProcessingRequest()
        getattr(sent, name).SetInParent()
        self.show(sent)

    @rule()
    def send_nothing_known(self) -> None:
        self.show(pb.ProcessingRequest())

    @precondition(lambda self: hasattr(self, "sink"))
    @rule()
    def break_whoever_is_told(self) -> None:
        self.sink.broken = True

    def show(self, sent: Any) -> None:
        self.stream.is_waiting = False
        self.stream.sent.put_nowait(sent)
        self.loop.run_until_complete(self.settled())

    async def settled(self) -> None:
        """Until the servicer waits for the next message, or is done."""
        while not (self.task.done() or self.stream.is_waiting):
            await asyncio.sleep(0)

    @invariant()
    def nothing_is_answered_and_an_end_is_an_end(self) -> None:
        if hasattr(self, "task"):
            assert self.stream.answers.empty()
            assert self.task.done() == self.has_ended
            assert self.task.done() or not self.sink.observations

    def teardown(self) -> None:
        if hasattr(self, "task"):
            self.stream.sent.put_nowait(grpc.aio.EOF)
            self.loop.run_until_complete(self.task)
            self.loop.close()
            assert self.stream.answers.empty()
            if not self.sink.broken:
                assert len(self.sink.observations) == self.is_asked
            for observation in self.sink.observations:
                assert not (observation.cut and self.has_ended)
                assert observation.latency_s >= 0


TestAnyObservedAnswer = AnyObservedAnswer.TestCase
TestAnyObservedAnswer.settings = settings(
    max_examples=50,
    stateful_step_count=10,
    deadline=None,  # a busy machine is no bug
    suppress_health_check=[HealthCheck.too_slow],
)
