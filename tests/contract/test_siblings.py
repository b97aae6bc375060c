"""Two workers that talk over real sockets: what one sees, the one that needs it learns."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ext_proc.core.observation import Role
from ext_proc.core.ports import Kept
from ext_proc.core.reply import Reply, ToolCall
from ext_proc.core.settings import MemorySettings
from ext_proc.core.types import CopyRefusal, Shadow
from ext_proc.core.watching import Answer
from ext_proc.server.sessions import MemorySessions
from ext_proc.workers import frames
from ext_proc.workers.answers import answer_of, fields_of
from ext_proc.workers.siblings import Seat, Siblings
from tests.support.builders import a_target
from tests.support.pairs import an_answer

LIMIT_S = 30.0


@dataclass
class Sink:
    answers: list[Answer] = field(default_factory=list)

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)


class Parent:
    """Passes frames on, as the supervisor does, and keeps what is for itself."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.told: list[Any] = []

    async def serve(self, index: int, reader: asyncio.StreamReader) -> None:
        while (frame := await frames.read_frame(reader)) is not None:
            address, content = frame
            if address == frames.PARENT:
                self.told.append(frames.unpack(content))
            for other, writer in enumerate(self.writers):
                if other == address or (address == frames.EVERYBODY and other != index):
                    frames.write_frame(writer, other, content)


@asynccontextmanager
async def a_pair() -> AsyncIterator[tuple[Siblings, Siblings, Parent]]:
    parent, siblings, readers = Parent(), [], []
    for index in range(2):
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        seat = Seat(index, 2, f"/nowhere/{index}.sock", b"salt")
        frames.write_frame(writer, index, frames.pack("seat", **seat.fields))
        parent.writers.append(writer)
        siblings.append(await asyncio.to_thread(Siblings, theirs))
        readers.append(asyncio.ensure_future(parent.serve(index, reader)))
    yield siblings[0], siblings[1], parent
    await asyncio.gather(*(one.close() for one in siblings))
    await asyncio.gather(*readers)
    for writer in parent.writers:
        writer.close()
        await writer.wait_closed()


async def until(holds: Any) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.001)


async def test_a_worker_learns_its_place_and_the_common_salt() -> None:
    async with a_pair() as (one, other, _):
        assert (one.seat.index, other.seat.index, one.seat.of) == (0, 1, 2)
        assert one.seat.salt == other.seat.salt == b"salt"
        assert "salt" not in repr(one.seat)


async def test_an_answer_goes_to_the_worker_that_decided_its_request() -> None:
    async with a_pair() as (one, other, _):
        sinks = [Sink(), Sink()]
        shared = [one.answers(sinks[0]), other.answers(sinks[1])]
        await one.start(list, lambda: None)
        await other.start(list, lambda: None)
        copy = an_answer(Role.SHADOW, "It rains.", pair=f"{one.pair_prefix}ab", question="why?")
        tools = (ToolCall("weather", '{"city":"Zürich"}'),)
        copy = replace(copy, reply=Reply("It rains, Zoë.", tools, refused=True))
        shared[1].answered(copy)
        await until(lambda: sinks[0].answers)
        assert sinks == [Sink([copy]), Sink()]
        shared[0].answered(an_answer(pair=f"{one.pair_prefix}ab"))
        assert len(sinks[0].answers) == 2


async def test_a_primary_whose_copies_nobody_makes_stays_where_it_was_seen() -> None:
    async with a_pair() as (one, other, _):
        sink = Sink()
        one.answers(sink)
        shared = other.answers(Sink())
        await one.start(list, lambda: None)
        await other.start(list, lambda: None)
        shared.answered(an_answer(pair="0-a", copies=0))
        shared.answered(an_answer(pair="0-b", copies=1))
        await until(lambda: sink.answers)
        assert [answer.subject.pair for answer in sink.answers] == ["0-b"]


async def test_a_copy_that_another_worker_saw_end_frees_its_slot() -> None:
    async with a_pair() as (one, other, _):
        mine, others = one.bounds(600.0), other.bounds(600.0)
        await one.start(list, lambda: None)
        await other.start(list, lambda: None)
        shadow = Shadow(a_target("next/model"), 10_000, max_concurrent=2)
        copy = (f"{one.pair_prefix}ab", "next/model")

        def admitted() -> CopyRefusal | None:
            return mine.admit("p", shadow, [copy], 1, 0.0)

        assert admitted() is None
        assert mine.admit("p", shadow, [("0-other", "next/model")], 1, 0.0) is CopyRefusal.CONCURRENT
        others.began(copy, 0.0)
        others.ended(copy)
        await until(lambda: mine.on_their_way(0.0) == 0)
        assert admitted() is None


async def test_what_one_decided_for_a_session_all_know() -> None:
    async with a_pair() as (one, other, _):
        settings = MemorySettings(size=10, ttl_s=60.0)
        mine, others = (sibling.sessions(MemorySessions(settings)) for sibling in (one, other))
        await one.start(list, lambda: None)
        await other.start(list, lambda: None)
        mine.keep(b"session of jane", Kept("code"))
        await until(lambda: others.recall(b"session of jane") == Kept("code"))
        assert mine.recall(b"session of jane") == Kept("code")
        assert others.recall(b"another") is None


async def test_the_last_thing_a_worker_tells_is_what_it_counted() -> None:
    async with a_pair() as (one, _, parent):
        await one.start(lambda: [("n", "counter", "text", [("n_total", {}, 3.0)])], lambda: None)
        one.ready(50_051)
        one.known()
        await one.close()
        await until(lambda: len(parent.told) == 3)
        assert [message["kind"] for message in parent.told] == ["ready", "known", "metrics"]
        assert parent.told[2]["families"] == [["n", "counter", "text", [["n_total", {}, 3.0]]]]


async def test_a_worker_is_told_to_leave_and_ends_with_its_parent() -> None:
    async with a_pair() as (one, other, parent):
        stops: list[str] = []
        await one.start(list, lambda: stops.append("one"))
        await other.start(list, lambda: stops.append("other"))
        frames.write_frame(parent.writers[0], 0, frames.pack("retire"))
        await until(lambda: stops == ["one"])
        assert (one.is_retiring, other.is_retiring) == (True, False)
        parent.writers[1].close()
        await until(lambda: stops == ["one", "other"])
        assert not other.is_retiring


@pytest.mark.parametrize("pair", ["0-ab", "1-ab", "2-ab", "ab", "-ab", "x-ab", "", "²-ab"])
async def test_a_name_that_no_other_worker_gave_is_this_ones_own(pair: str) -> None:
    async with a_pair() as (one, _, __):
        assert one.owner(pair) == (1 if pair == "1-ab" else None)


async def test_what_is_too_long_to_be_read_is_not_sent_and_costs_nothing_after_it() -> None:
    async with a_pair() as (one, other, _):
        sink = Sink()
        told = one.answers(Sink())
        other.answers(sink)
        await one.start(list, lambda: None)
        await other.start(list, lambda: None)
        told.answered(an_answer(pair="1-ab", text="x" * (frames.MAX_FRAME_BYTES + 1)))
        told.answered(an_answer(pair="1-ab", text="short"))
        await until(lambda: sink.answers)
        assert [answer.reply for answer in sink.answers] == [Reply("short")]


@pytest.mark.parametrize("role", list(Role))
def test_an_answer_survives_the_way(role: Role) -> None:
    answer = an_answer(role, tokens_out=3, cost=0.5, bucket=77, question="?" if role is Role.SHADOW else None)
    assert answer_of(frames.unpack(frames.pack("answer", answer=fields_of(answer)))["answer"]) == answer
    silent = an_answer(role, None)
    assert answer_of(fields_of(silent)) == silent


def test_half_a_letter_does_not_stop_an_answer() -> None:
    answer = an_answer(text="half \ud800 a letter")
    frames.pack("answer", answer=fields_of(answer))
    reply = answer_of(fields_of(answer)).reply
    assert reply is not None
    assert reply.text == "half ? a letter"
