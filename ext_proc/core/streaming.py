"""The state machine of one ext_proc stream whose body is FULL_DUPLEX_STREAMED, without any I/O.

Envoy sends the body in pieces as they come, waits for no answer, and keeps no copy: what this server does
not send back is lost. Headers can change only in the answer to the headers, which may come as late as the
server likes. So the headers and the body up to a window are held until there is a decision:

    state     event                                 action               next
    HEADERS   headers of no LLM call                Pass                 FLOW
    HEADERS   headers of an LLM call, no body       Decide (empty)       ENDED
    HEADERS   headers of one that is no JSON        Decide (unread)      FLOW
    HEADERS   headers of an LLM call                Hold                 HELD
    HELD      a piece, within the window            Hold                 HELD
    HELD      the last piece, within the window     Decide (whole)       ENDED
    HELD      trailers                              Decide (whole)       ENDED
    HELD      a piece that goes beyond the window   Decide (head)        FLOW
    FLOW      a piece                               Forward              FLOW, after the last one ENDED
    FLOW      trailers                              Acknowledge          ENDED
    any       anything else about the request       Hold                 (same)
    any       anything about the answer             Acknowledge          (same)

`after_decision()` gives what follows the answer to a Decide: what was held, and the end where that has come.
A whole body is never longer than the window and a head never shorter, so where a request goes depends on its
bytes and not on how they were cut. Envoy may send the last piece of a large body twice
(https://github.com/envoyproxy/envoy/issues/46237), so nothing counts after the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from ext_proc.core.exchange import (
    Acknowledge,
    AnswerBody,
    AnswerHeaders,
    Classify,
    Decide,
    Event,
    Other,
    Part,
    Pass,
    RequestBody,
    RequestHeaders,
)
from ext_proc.core.parse import dialect_of, is_json
from ext_proc.core.types import Dialect

PIECE_BYTES = 62 << 10
"""The largest piece that is sent back. Envoy's documentation recommends no more than 64 KiB a message; what
is left of that is room for a model's name."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Answer nothing: not yet, or not any more."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Send these bytes of the request's body on. `ends`: they are its last."""

    body: bytes = field(repr=False)
    ends: bool

    def pieces(self) -> Iterator[Forward]:
        """The same in pieces of at most `PIECE_BYTES`; none where there is nothing to send on."""
        last = max(0, (len(self.body) - 1) // PIECE_BYTES * PIECE_BYTES)
        for at in range(0, last, PIECE_BYTES):
            yield Forward(self.body[at : at + PIECE_BYTES], ends=False)
        if self.body or self.ends:
            yield Forward(self.body[last:], self.ends)


StreamedAction = Pass | Hold | Decide | Forward | Acknowledge


class _State(Enum):
    HEADERS = auto()
    HELD = auto()
    FLOW = auto()
    ENDED = auto()


class StreamedExchange:
    """The state of one stream: feed it events, carry out its actions.

    Units: `window_bytes` is the most that is held of a body, besides the one piece that goes beyond it.
    """

    __slots__ = (
        "_classify",
        "_dialect",
        "_headers",
        "_held",
        "_held_bytes",
        "_rest",
        "_state",
        "_window_bytes",
    )

    def __init__(self, window_bytes: int, classify: Classify = dialect_of) -> None:
        self._window_bytes = window_bytes
        self._classify = classify
        self._state = _State.HEADERS
        self._headers = RequestHeaders()
        self._dialect = Dialect.CHAT_COMPLETIONS
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._rest: list[Forward | Acknowledge] = []

    @property
    def held_bytes(self) -> int:
        """How much of the body waits here for a decision."""
        return self._held_bytes

    def receive(self, event: Event) -> StreamedAction:
        """Take one event and say what to do about it. Total: any event is welcome in any state."""
        match event:
            case RequestHeaders() if self._state is _State.HEADERS:
                return self._receive_headers(event)
            case RequestBody() if self._state is _State.HELD:
                return self._hold(event)
            case RequestBody(body, ends) if self._state is _State.FLOW:
                self._state = _State.ENDED if ends else _State.FLOW
                return Forward(body, ends)
            case Other(Part.REQUEST_TRAILERS) if self._state is _State.HELD:
                return self._decide_whole([Forward(b"", ends=False), Acknowledge(Part.REQUEST_TRAILERS)])
            case Other(Part.REQUEST_TRAILERS as part) if self._state is _State.FLOW:
                self._state = _State.ENDED
                return Acknowledge(part)
            case AnswerHeaders():
                return Acknowledge(Part.RESPONSE_HEADERS)
            case AnswerBody():
                return Acknowledge(Part.RESPONSE_BODY)
            case Other(Part.RESPONSE_TRAILERS as part):
                return Acknowledge(part)
            case _:
                return Hold()

    def after_decision(self, body: bytes) -> list[Forward | Acknowledge]:
        """What follows the answer to a Decide, whose body has become `body`."""
        rest, self._rest = self._rest, []
        match rest:
            case [Forward(_, ends), *others]:
                return [Forward(body, ends), *others]
            case _:
                return rest

    def end(self) -> None:
        """The request was refused: nothing of it goes on."""
        self._state, self._rest = _State.ENDED, []

    def _receive_headers(self, event: RequestHeaders) -> StreamedAction:
        dialect = self._classify(event.method, event.path)
        self._state = _State.ENDED if event.ends_request else _State.FLOW
        if dialect is None:
            return Pass()
        if event.ends_request or not is_json(event.content_type):
            return Decide(Part.REQUEST_HEADERS, dialect, event, b"", is_streamed=True)
        self._state, self._dialect, self._headers = _State.HELD, dialect, event
        return Hold()

    def _hold(self, piece: RequestBody) -> StreamedAction:
        self._held.append(piece.body)
        self._held_bytes += len(piece.body)
        if self._held_bytes > self._window_bytes:
            return self._decide_head(piece.ends_request)
        return self._decide_whole([Forward(b"", ends=True)]) if piece.ends_request else Hold()

    def _decide_whole(self, rest: list[Forward | Acknowledge]) -> Decide:
        self._state, self._rest = _State.ENDED, rest
        return self._decide(self._taken(), is_head=False)

    def _decide_head(self, ends: bool) -> Decide:
        self._state = _State.ENDED if ends else _State.FLOW
        held = self._taken()
        self._rest = [Forward(b"", ends=False), Forward(held[self._window_bytes :], ends)]
        return self._decide(held[: self._window_bytes], is_head=True)

    def _taken(self) -> bytes:
        held, self._held, self._held_bytes = b"".join(self._held), [], 0
        return held

    def _decide(self, body: bytes, *, is_head: bool) -> Decide:
        return Decide(Part.REQUEST_HEADERS, self._dialect, self._headers, body, True, is_head)
