"""The state machine of one ext_proc stream whose body is BUFFERED, in any role, without any I/O.

Envoy opens one gRPC stream per HTTP request and sends messages in the order of the request's parts;
every message gets exactly one answer, in order. (`streaming.py` is for bodies that come in pieces.)

    state     event                              action              next
    HEADERS   headers of no LLM call             Pass                DONE
    HEADERS   headers of an LLM call, no body    Decide (empty)      DONE
    HEADERS   headers of one that is no JSON     Decide (unread)     DONE
    HEADERS   headers of an LLM call             AwaitBody           BODY
    BODY      body                               Decide              DONE
    any       anything else                      Acknowledge         (same)

The last row keeps the promise whatever a foreign configuration makes Envoy send: answer phases,
trailers, a second body message. They are acknowledged and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from ext_proc.core.parse import dialect_of, is_json
from ext_proc.core.traceparent import Parent
from ext_proc.core.types import Dialect


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """The request's headers as far as they count. `ends_request` is set when no body follows.

    `arch` holds this server's own headers, which only a role that comes after the decision sees.
    `path` holds bytes that are no UTF-8 as surrogates, to give them back unchanged.
    `attempt` is the target that an attempt goes to, `model` the one that the request was written for.
    `try_arm` and `try_key` are a tester's. `parent` is the span that the request is part of.
    """

    method: str = ""
    path: str = ""
    content_type: str = ""
    content_encoding: str = ""
    request_id: str = ""
    session_pin: str | None = None
    ends_request: bool = False
    attempt: str = ""
    model: str = ""
    arch: Mapping[str, str] = field(default_factory=dict)
    try_arm: str = ""
    try_key: str = field(default="", repr=False)
    parent: Parent | None = None


@dataclass(frozen=True, slots=True)
class RequestBody:
    """The whole body in BUFFERED mode, a piece of it in FULL_DUPLEX_STREAMED; the last one `ends_request`."""

    body: bytes = field(repr=False)
    ends_request: bool = True


class Part(Enum):
    """Which part of the exchange a message is about; an answer names the same part."""

    REQUEST_HEADERS = auto()
    REQUEST_BODY = auto()
    REQUEST_TRAILERS = auto()
    RESPONSE_HEADERS = auto()
    RESPONSE_BODY = auto()
    RESPONSE_TRAILERS = auto()


@dataclass(frozen=True, slots=True)
class AnswerHeaders:
    """An answer's headers as far as they count. `model` is the target that answered, if Envoy says so."""

    status: int = 0
    content_type: str = ""
    content_encoding: str = ""
    model: str = ""
    ends_answer: bool = False


@dataclass(frozen=True, slots=True)
class AnswerBody:
    """A piece of an answer's body."""

    body: bytes = field(repr=False)
    ends_answer: bool = False


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """An answer that its provider broke off, as Envoy logs it. `arch` as in `RequestHeaders`.

    `fallback`: it went to a chain, and another target than the chain's first answered.

    Units: seconds from the request's first byte to the break.
    """

    request_id: str
    status: int
    latency_s: float
    model: str
    arch: Mapping[str, str]
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Other:
    """A message that this role has no use for."""

    part: Part


Event = RequestHeaders | RequestBody | AnswerHeaders | AnswerBody | Other


@dataclass(frozen=True, slots=True)
class Pass:
    """Answer the headers, and ask for no body: this request is not ours to route."""


@dataclass(frozen=True, slots=True)
class AwaitBody:
    """Answer the headers and keep the request waiting for its body."""


@dataclass(frozen=True, slots=True)
class Decide:
    """Everything needed is here: decide, and answer `part` with the mutation.

    When that is the headers, no body is wanted after them, unless the body `is_streamed`: then the headers
    were kept waiting for it. `is_head`: there is more of it than `body` holds.
    """

    part: Part
    dialect: Dialect
    headers: RequestHeaders
    body: bytes = field(repr=False)
    is_streamed: bool = False
    is_head: bool = False


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Answer that nothing changes."""

    part: Part


Action = Pass | AwaitBody | Decide | Acknowledge


Classify = Callable[[str, str], Dialect | None]
"""Method and path to the dialect of an LLM call, or None."""


class Exchange:
    """The state of one stream: feed it events, carry out its actions."""

    __slots__ = ("_awaited", "_classify", "_dialect", "_has_headers")

    def __init__(self, classify: Classify = dialect_of) -> None:
        self._classify = classify
        self._has_headers = False
        self._dialect: Dialect | None = None
        self._awaited: RequestHeaders | None = None

    @property
    def is_done(self) -> bool:
        """Whether all that is left to say is that nothing changes."""
        return self._has_headers and self._awaited is None

    def receive(self, event: Event) -> Action:
        """Take one event and say what to do about it. Total: any event is welcome in any state."""
        match event:
            case RequestHeaders() if not self._has_headers:
                return self._receive_headers(event)
            case RequestHeaders():
                return Acknowledge(Part.REQUEST_HEADERS)
            case RequestBody(body, _):
                return self._receive_body(body)
            case AnswerHeaders():
                return Acknowledge(Part.RESPONSE_HEADERS)
            case AnswerBody():
                return Acknowledge(Part.RESPONSE_BODY)
            case Other(part):
                return Acknowledge(part)

    def _receive_headers(self, event: RequestHeaders) -> Action:
        self._has_headers = True
        dialect = self._classify(event.method, event.path)
        if dialect is None:
            return Pass()
        if event.ends_request or not is_json(event.content_type):
            return Decide(Part.REQUEST_HEADERS, dialect, event, b"")
        self._dialect, self._awaited = dialect, event
        return AwaitBody()

    def _receive_body(self, body: bytes) -> Action:
        if self._awaited is None or self._dialect is None:
            return Acknowledge(Part.REQUEST_BODY)
        headers, self._awaited = self._awaited, None
        return Decide(Part.REQUEST_BODY, self._dialect, headers, body)
