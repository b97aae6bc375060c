"""Answers seen while they pass: the observe role for primaries, and the answers of copies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc

from ext_proc.core import headers, parse
from ext_proc.core.copying import CopyBounds
from ext_proc.core.exchange import (
    AnswerBody,
    AnswerHeaders,
    BrokenOff,
    Decide,
    Event,
    Other,
    Part,
    RequestHeaders,
)
from ext_proc.core.observation import Role
from ext_proc.core.ports import AnswerSink, ObservationSink
from ext_proc.core.types import LlmCall
from ext_proc.core.watching import AnswerWatch, Subject, bucket_in, observation_of_break
from ext_proc.server import wire
from ext_proc.server.routing import Live
from ext_proc.telemetry import Telemetry

_TRAILERS = Other(Part.RESPONSE_TRAILERS)

_QUESTION_CHARS = 8_000
"""How much of a conversation a judge gets: its end, where the question is."""


class Observing:
    """Tells of every answer: `observations` its figures, `answers` its contents as well.

    Whoever is told never waits. If it fails all the same, that is a bug, counted, and no request's matter.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        observations: Sequence[ObservationSink] = (),
        answers: AnswerSink | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._observations = tuple(observations)
        self._answers = answers

    async def observe(self, live: Live, context: Any) -> None:
        """Serve one stream of the observe role. Envoy waits for nothing, so nothing is ever answered."""
        watch: AnswerWatch | None = None
        while (message := await context.read()) is not grpc.aio.EOF:
            event = wire.read(message)
            if isinstance(event, RequestHeaders):
                subject = _primary(event)
                limit = live.comparison.max_text_bytes if subject.copies and self._answers else 0
                watch = AnswerWatch(subject, time.perf_counter(), limit)
            elif watch is not None:
                await _see(watch, event)
                if watch.has_ended:
                    break
        if watch is not None:
            self.tell(live, watch)

    def broke_off(self, broken: BrokenOff) -> None:
        """A primary's answer, told of as `cut`, was broken off by its provider."""
        try:
            observation = self._telemetry.in_force.named(observation_of_break(broken, time.time()))
            for sink in self._observations:
                sink.observed(observation)
        except Exception as error:  # noqa: BLE001 - the answer has passed already
            self._telemetry.bug(error, broken.request_id)

    def tell(self, live: Live, watch: AnswerWatch, question: str | None = None) -> None:
        """An answer has ended."""
        try:
            answer = watch.finish(time.time(), live.snapshot.targets, question)
            answer = replace(answer, observation=self._telemetry.in_force.named(answer.observation))
            for sink in self._observations:
                sink.observed(answer.observation)
            # Where a primary never began there is nothing to compare.
            is_there = bool(answer.subject.pair) and not answer.observation.is_unanswered
            if self._answers is not None and is_there:
                self._answers.answered(answer)
        except Exception as error:  # noqa: BLE001 - the answer has passed already
            self._telemetry.bug(error, watch.request_id)


class CopyAnswer:
    """The answer to one copy: begins when the copy is sent, told of when it has ended, and frees its slot."""

    def __init__(self, observing: Observing, live: Live, target: str, bounds: CopyBounds) -> None:
        self._observing = observing
        self._live = live
        self._target = target
        self._bounds = bounds
        self._pair: str | None = None
        self._watch: AnswerWatch | None = None
        self._question: str | None = None

    def sent(self, request: Decide, body: bytes) -> None:
        """The copy is fit for its target and on its way there."""
        subject = _copy(request.headers, self._target)
        self._pair = subject.pair
        self._bounds.began((subject.pair, self._target), time.monotonic())
        self._watch = AnswerWatch(subject, time.perf_counter(), self._live.comparison.max_text_bytes)
        if self._live.comparison.judge is not None or self._live.comparison.samples is not None:
            self._question = _question(request, body)

    def dropped(self, request: Decide) -> None:
        """The copy could not be made fit, so nobody gets it."""
        self._bounds.ended((request.headers.arch.get(headers.OBSERVE, ""), self._target))

    async def see(self, event: Event) -> None:
        """A part of the answer passes."""
        if self._watch is not None:
            await _see(self._watch, event)
            if self._watch.has_ended:
                self.finish()

    def finish(self) -> None:
        """The stream has ended, if the answer has not before."""
        if self._watch is not None:
            self._observing.tell(self._live, self._watch, self._question)
        if self._pair is not None:
            self._bounds.ended((self._pair, self._target))
        self._watch = self._pair = self._question = None


async def _see(watch: AnswerWatch, event: Event | None) -> None:
    """Between two steps everybody else has a turn, so that no answer holds up a decision."""
    if isinstance(event, AnswerHeaders):
        watch.begin(event, time.perf_counter())
    elif isinstance(event, AnswerBody):
        for _ in watch.take(event, time.perf_counter()):
            await asyncio.sleep(0)
    elif event == _TRAILERS:
        watch.end(time.perf_counter())


def _primary(request: RequestHeaders) -> Subject:
    arch = request.arch
    return Subject(
        role=Role.PRIMARY,
        request_id=request.request_id,
        pair=arch.get(headers.OBSERVE, ""),
        policy=arch.get(headers.POLICY, ""),
        arm=arch.get(headers.ARM, ""),
        target=arch.get(headers.MODEL, ""),
        copies=sum(name in arch for name in (headers.SHADOW, headers.NOISE)),
        bucket=bucket_in(arch),
    )


def _copy(request: RequestHeaders, target: str) -> Subject:
    arch = request.arch
    is_noise = arch.get(headers.MODEL) == target
    return Subject(
        role=Role.NOISE if is_noise else Role.SHADOW,
        request_id=request.request_id,
        pair=arch.get(headers.OBSERVE, ""),
        policy=arch.get(headers.POLICY, ""),
        arm="",
        target=target,
    )


def _question(request: Decide, body: bytes) -> str | None:
    """The end of the conversation, as text. Only the end of a copy's path tells the API."""
    dialect = parse.dialect_of_endpoint(request.headers.path)
    call = parse.parse_call(dialect, body) if dialect else None
    if not isinstance(call, LlmCall):
        return None
    text = "\n\n".join(f"{message.role}: {message.text}" for message in call.messages)
    return text[-_QUESTION_CHARS:]
