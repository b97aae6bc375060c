"""Envoy's protobuf messages to core events, and core actions to messages: the only file that imports them.

Source: envoy/service/ext_proc/v3/external_processor.proto. Header values travel as `raw_value`; a
value in `value` is what an Envoy before 1.27 would send.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from ext_proc.core import headers
from ext_proc.core.exchange import (
    AnswerBody,
    AnswerHeaders,
    BrokenOff,
    Decide,
    Event,
    Other,
    Part,
    RequestBody,
    RequestHeaders,
)
from ext_proc.core.rewrite import Mutation
from ext_proc.core.traceparent import parse_traceparent
from ext_proc.core.types import Decision

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD = "Process"

LOG_SERVICE = "envoy.service.accesslog.v3.AccessLogService"
LOG_METHOD = "StreamAccessLogs"
LOGGED: bytes = als_pb2.StreamAccessLogsResponse().SerializeToString()
"""What ends a stream of logs. Envoy waits for none."""

_MAX_REQUEST_ID_CHARS = 128
"""Envoy's own have 36. Where it keeps a client's, that goes into log lines."""

_COUNT = frozenset(
    (
        *(":method", ":path", ":status", "content-type", "content-encoding", "x-request-id", "traceparent"),
        *(headers.ATTEMPT, headers.MODEL, headers.TRY_ARM, headers.TRY_KEY),
        *headers.SESSION_PINS,
        *headers.DECISION,
    )
)
"""The headers that are read."""
_DECISION = frozenset(headers.DECISION)

_OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_PARTS = {
    "request_headers": Part.REQUEST_HEADERS,
    "request_body": Part.REQUEST_BODY,
    "request_trailers": Part.REQUEST_TRAILERS,
    "response_headers": Part.RESPONSE_HEADERS,
    "response_body": Part.RESPONSE_BODY,
    "response_trailers": Part.RESPONSE_TRAILERS,
}
_FIELDS = {part: name for name, part in _PARTS.items()}

_LARGE_BYTES = 64 << 10
"""From here on writing a body by hand costs less than protobuf does."""


def _tag(message: Any, field: str) -> bytes:
    """What begins a field of this name. All those used here are of wire type LEN and below number 16."""
    return bytes((message.DESCRIPTOR.fields_by_name[field].number << 3 | 2,))


_OF_ONE_REQUEST = frozenset((":path", "content-length", headers.BUCKET, headers.OBSERVE))
"""The headers whose values hardly ever come again."""

_OF_PART = {part: _tag(pb.ProcessingResponse, name) for name, part in _PARTS.items()}
_RESPONSE = _tag(pb.BodyResponse, "response")
_BODY_MUTATION = _tag(pb.CommonResponse, "body_mutation")
_BODY = _tag(pb.BodyMutation, "body")

_MODE = processing_mode_pb2.ProcessingMode
_NO_BODY = _MODE(
    request_header_mode=_MODE.SEND,
    response_header_mode=_MODE.SKIP,
    request_body_mode=_MODE.NONE,
    response_body_mode=_MODE.NONE,
    request_trailer_mode=_MODE.SKIP,
    response_trailer_mode=_MODE.SKIP,
)
"""The one mode that the filter lets this server choose."""


def deserialize(data: bytes) -> Any:
    """One message from Envoy. Errors: google.protobuf.message.DecodeError."""
    return pb.ProcessingRequest.FromString(data)


def is_streamed(message: Any) -> bool:
    """Whether Envoy, in a stream's first message, says that it sends the request's body in pieces."""
    return bool(message.protocol_config.request_body_mode == _MODE.FULL_DUPLEX_STREAMED)


def read(message: Any) -> Event | None:
    """A message to an event; None for a kind that this version of the protocol does not name."""
    kind = message.WhichOneof("request")
    if kind == "request_body":
        return RequestBody(message.request_body.body, message.request_body.end_of_stream)
    if kind == "request_headers":
        return _read_headers(message.request_headers)
    if kind == "response_headers":
        return _read_answer_headers(message.response_headers)
    if kind == "response_body":
        return AnswerBody(message.response_body.body, message.response_body.end_of_stream)
    return Other(_PARTS[kind]) if kind else None


def _read_headers(message: Any) -> RequestHeaders:
    values = _values(message)
    get = values.get
    session_pin = None
    for name in headers.SESSION_PINS:
        session_pin = session_pin or get(name) or None
    return RequestHeaders(
        method=get(":method", ""),
        path=get(":path", ""),
        content_type=get("content-type", ""),
        content_encoding=get("content-encoding", ""),
        request_id=get("x-request-id", "")[:_MAX_REQUEST_ID_CHARS],
        session_pin=session_pin,
        ends_request=message.end_of_stream,
        attempt=get(headers.ATTEMPT, ""),
        model=get(headers.MODEL, ""),
        arch={name: value for name, value in values.items() if name in _DECISION},
        try_arm=get(headers.TRY_ARM, ""),
        try_key=get(headers.TRY_KEY, ""),
        parent=parse_traceparent(get("traceparent", "")),
    )


def _read_answer_headers(message: Any) -> AnswerHeaders:
    values = _values(message)
    status = values.get(":status", "")
    return AnswerHeaders(
        status=int(status) if status.isascii() and status.isdigit() else 0,
        content_type=values.get("content-type", ""),
        content_encoding=values.get("content-encoding", ""),
        model=values.get(headers.MODEL, ""),
        ends_answer=message.end_of_stream,
    )


def _values(message: Any) -> dict[str, str]:
    """The headers that count here; of all others no value is even looked at."""
    return {
        # A path goes back to Envoy as it came, byte for byte; the others are only read.
        key: (header.raw_value or header.value.encode()).decode(
            "utf-8", "surrogateescape" if key == ":path" else "replace"
        )
        for header in message.headers.headers
        if (key := header.key) in _COUNT
    }


def deserialize_logs(data: bytes) -> Any:
    """One message of Envoy's log service. Errors: google.protobuf.message.DecodeError."""
    return als_pb2.StreamAccessLogsMessage.FromString(data)


def read_logs(message: Any) -> Iterator[BrokenOff]:
    """The entries, each of an answer that its provider broke off. Source: envoy/data/accesslog/v3."""
    for entry in message.http_logs.log_entry:
        asked, answered = entry.request.request_headers, entry.response.response_headers
        yield BrokenOff(
            request_id=entry.request.request_id[:_MAX_REQUEST_ID_CHARS],
            status=entry.response.response_code.value,
            latency_s=entry.common_properties.duration.ToNanoseconds() / 1e9,
            model=answered.get(headers.MODEL, ""),
            arch={name: asked[name] for name in headers.LOGGED_OF_BREAKS if name in asked},
            # An attempt elsewhere has renamed the model in the request too: only this mark tells.
            fallback=headers.ATTEMPTS in answered and headers.WRITTEN_FOR not in asked,
        )


def write(request: Decide, mutation: Mutation, decision: Decision | None) -> bytes:
    """The answer that carries out a mutation; with a decision, a fresh choice of route and metadata too.

    Envoy chooses its route again only when the same answer changes a header (a decision always does),
    and never for an upstream filter. The body of a streamed request follows in pieces of its own.

    Most of an answer is the same for all requests that go to one target for one reason, so that is kept. A
    message is what its fields say in turn, those within the same field too: what is appended to an answer
    adds to it. Source: https://protobuf.dev/programming-guides/encoding/#last-one-wins
    """
    body = None if request.is_streamed else mutation.body
    told = () if decision is None else _told(decision)
    is_same = decision is None or decision.bucket is None
    shared = tuple(pair for pair in mutation.set if pair[0] not in _OF_ONE_REQUEST)
    kept = _shared(
        request.part,
        shared,
        mutation.remove,
        told if is_same else (),
        is_decided=decision is not None,
        is_streamed=request.is_streamed,
    )
    own = pb.ProcessingResponse()
    common = getattr(own, _FIELDS[request.part]).response
    if len(shared) < len(mutation.set):
        _set(common, (pair for pair in mutation.set if pair[0] in _OF_ONE_REQUEST))
    if not is_same:
        _tell(own, told)
    if body is None:
        return kept + _serialized(own)
    if len(body) < _LARGE_BYTES:
        common.body_mutation.body = body
        return kept + _serialized(own)
    return _with_large(kept + _serialized(own), request.part, body)


@lru_cache(maxsize=256)
def _shared(
    part: Part,
    pairs: tuple[tuple[str, bytes], ...],
    removed: tuple[str, ...],
    told: tuple[tuple[str, str | int], ...],
    *,
    is_decided: bool,
    is_streamed: bool,
) -> bytes:
    """What answers share, providers' keys included. The last used are kept, of a few hundred bytes each."""
    answer = pb.ProcessingResponse()
    common = getattr(answer, _FIELDS[part]).response
    _set(common, pairs)
    if removed:
        common.header_mutation.remove_headers.extend(removed)
    if is_decided:
        common.clear_route_cache = True
        if part is Part.REQUEST_HEADERS and not is_streamed:
            answer.mode_override.CopyFrom(_NO_BODY)
    if told:
        _tell(answer, told)
    return _serialized(answer)


def _set(common: Any, pairs: Iterable[tuple[str, bytes]]) -> None:
    add = common.header_mutation.set_headers.add
    for name, value in pairs:
        option = add(append_action=_OVERWRITE)
        option.header.key = name
        option.header.raw_value = value


def _told(decision: Decision) -> tuple[tuple[str, str | int], ...]:
    """The metadata that a decision carries to Envoy's access log."""
    target = decision.target
    told: list[tuple[str, str | int]] = [
        ("reason", decision.reason.value),
        ("model", target.name),
        ("cluster", target.cluster),
    ]
    if decision.policy is not None:
        told.append(("policy", decision.policy))
    if decision.arm is not None:
        told.append(("arm", decision.arm))
    if decision.bucket is not None:
        told.append(("bucket", decision.bucket))
    if decision.shadow is not None:
        told.append(("shadow", decision.shadow.target.name))
    return tuple(told)


def _tell(answer: Any, told: Iterable[tuple[str, str | int]]) -> None:
    fields = answer.dynamic_metadata.fields[headers.METADATA_NAMESPACE].struct_value.fields
    for name, value in told:
        if isinstance(value, str):
            fields[name].string_value = value
        else:
            fields[name].number_value = value


def _serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _with_large(answer: bytes, part: Part, body: bytes) -> bytes:
    """The same answer with a body. protobuf would copy a large one thrice, into pages new each time."""
    length = len(body)
    heads = []
    for tag in (_BODY, _BODY_MUTATION, _RESPONSE, _OF_PART[part]):
        head = tag + _varint(length)
        length += len(head)
        heads.append(head)
    return b"".join((answer, *reversed(heads), body))


def _varint(number: int) -> bytes:
    """Source: https://protobuf.dev/programming-guides/encoding/#varints"""
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def write_piece(body: bytes, ends: bool) -> bytes:
    """A piece of the request's body in FULL_DUPLEX_STREAMED mode."""
    answer = pb.ProcessingResponse()
    piece = answer.request_body.response.body_mutation.streamed_response
    piece.body, piece.end_of_stream = body, ends
    return _serialized(answer)


def _acknowledgement(part: Part) -> bytes:
    answer = pb.ProcessingResponse()
    getattr(answer, _FIELDS[part]).SetInParent()
    return _serialized(answer)


def _pass() -> bytes:
    answer = pb.ProcessingResponse()
    answer.request_headers.SetInParent()
    answer.mode_override.CopyFrom(_NO_BODY)
    return _serialized(answer)


def _immediate(status: int) -> bytes:
    answer = pb.ProcessingResponse()
    answer.immediate_response.status.code = status
    return _serialized(answer)


ACKNOWLEDGE = {part: _acknowledgement(part) for part in Part}
"""Prebuilt answers that change nothing."""

PASS = _pass()
"""The prebuilt answer to headers after which Envoy sends no body."""

AWAIT_BODY = ACKNOWLEDGE[Part.REQUEST_HEADERS]
"""The prebuilt answer to headers after which the body comes."""

DROP = _immediate(422)
"""The prebuilt answer that ends a copy inside Envoy. Nobody waits for a copy's answer."""

REFUSE = _immediate(503)
"""The prebuilt answer that ends an attempt inside Envoy: the client gets this status, and may try again."""
