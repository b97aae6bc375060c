"""One answer while it passes: what came when, until it is an observation. The clock is the caller's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ext_proc.core import headers as names
from ext_proc.core.exchange import AnswerBody, AnswerHeaders, BrokenOff
from ext_proc.core.observation import Observation, Role
from ext_proc.core.reading import AnswerReader, Reading
from ext_proc.core.reply import Reply
from ext_proc.core.types import Target
from ext_proc.core.usage import cost_of


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose answer it is. `pair` is where the answers to one request meet, empty if it stays alone.

    `copies`: how many copies of a primary's request are on their way.
    """

    role: Role
    request_id: str
    pair: str
    policy: str
    arm: str
    target: str
    copies: int = 0
    bucket: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An observed answer with its contents, where they are wanted: for the pair table, and for it alone.

    `question` is what a copy's request asked, for whoever judges the answers.
    """

    subject: Subject
    observation: Observation
    reply: Reply | None = field(default=None, repr=False)
    question: str | None = field(default=None, repr=False)


class AnswerWatch:
    """Feed it an answer's parts as they pass. `started` is when its request was whole."""

    __slots__ = ("_ended", "_first", "_headers", "_last", "_reader", "_reply_limit", "_started", "_subject")

    def __init__(self, subject: Subject, started: float, reply_limit_bytes: int) -> None:
        self._subject = subject
        self._started = self._last = started
        self._reply_limit = reply_limit_bytes
        self._headers: AnswerHeaders | None = None
        self._reader: AnswerReader | None = None
        self._first: float | None = None
        self._ended = False

    @property
    def has_ended(self) -> bool:
        return self._ended

    def begin(self, headers: AnswerHeaders, now: float) -> None:
        """The answer's headers came. Those of an interim answer (1xx) do not count."""
        if 100 <= headers.status < 200:
            return
        self._headers, self._last, self._ended = headers, now, headers.ends_answer
        self._reader = AnswerReader(headers.content_type, headers.content_encoding, self._reply_limit)

    def take(self, body: AnswerBody, now: float) -> Iterator[None]:
        """A piece of the answer's body came. It is read as the steps are taken (`AnswerReader.feed`)."""
        if self._reader is None:
            return iter(())
        if body.body and self._first is None:
            self._first = now
        self._last, self._ended = now, body.ends_answer
        return self._reader.feed(body.body)

    def end(self, now: float) -> None:
        """The answer's trailers came: nothing follows."""
        if self._headers is not None:
            self._last, self._ended = now, True

    @property
    def request_id(self) -> str:
        return self._subject.request_id

    def finish(self, at: float, targets: Mapping[str, Target], question: str | None = None) -> Answer:
        """What was seen. `targets` have the prices; `at` is the time now, in seconds since the epoch.

        An answer that Envoy stopped sending before its end was cut off by either side: a copy's by the
        provider, since no client waits for it; a primary's by whom, only Envoy's log says, later. One that
        never began was a client's doing: Envoy itself answers for a provider that does not.
        """
        subject, headers = self._subject, self._headers or AnswerHeaders()
        reading = self._reader.finish() if self._reader is not None else Reading()
        name = headers.model or subject.target
        target = targets.get(name)
        is_copy = subject.role is not Role.PRIMARY
        was_cut = headers.status != 0 and not self._ended
        failed = reading.failed and self._ended and 200 <= headers.status < 300
        observation = Observation(
            request_id=subject.request_id,
            policy=subject.policy,
            arm=subject.arm,
            target=name,
            role=subject.role,
            status=headers.status,
            latency_s=self._last - self._started,
            at=at,
            first_byte_s=None if self._first is None else self._first - self._started,
            tokens_in=reading.usage.tokens_in,
            tokens_out=reading.usage.tokens_out,
            cost=cost_of(target.price if target else None, reading.usage),
            broken=failed or (was_cut and is_copy),
            cut=not self._ended and not is_copy,
            fallback=name != subject.target,
            decided=subject.target,
            bucket=subject.bucket,
            unread=reading.unread,
        )
        return Answer(subject, observation, reading.reply, question)


def observation_of_break(broken: BrokenOff, at: float) -> Observation:
    """What amends the observation of an answer that was cut: its provider did it."""
    arch = broken.arch
    return Observation(
        request_id=broken.request_id,
        policy=arch.get(names.POLICY, ""),
        arm=arch.get(names.ARM, ""),
        target=broken.model or arch.get(names.MODEL, ""),
        role=Role.PRIMARY,
        status=broken.status,
        latency_s=broken.latency_s,
        at=at,
        broken=True,
        cut=True,
        fallback=broken.fallback,
        bucket=bucket_in(arch),
    )


def bucket_in(arch: Mapping[str, str]) -> int | None:
    """The session's bucket that a request's headers tell."""
    bucket = arch.get(names.BUCKET, "")
    return int(bucket) if bucket.isascii() and bucket.isdigit() else None
