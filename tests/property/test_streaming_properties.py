"""A body in pieces, however it is cut: the same decision, the same bytes, no more held than the window."""

from __future__ import annotations

import json

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from ext_proc.core import head, rewrite, spans
from ext_proc.core.exchange import Acknowledge, Decide, Other, Part, RequestBody, RequestHeaders
from ext_proc.core.parse import parse_call
from ext_proc.core.splicing import ModelSplice
from ext_proc.core.streaming import PIECE_BYTES, Forward, Hold, StreamedExchange
from ext_proc.core.types import Dialect, LlmCall
from tests.property.test_splice_properties import BODIES, MODELS, Pairs, document

CALL = RequestHeaders("POST", "/v1/chat/completions", "application/json")
TRAILERS = Other(Part.REQUEST_TRAILERS)


@st.composite
def cuts(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> list[bytes]:
    """A body in pieces, empty ones among them."""
    body = draw(bodies)
    places = sorted(draw(st.lists(st.integers(0, len(body)), max_size=8)))
    return [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]


def spliced(pieces: list[bytes], model: str) -> bytes:
    splice = ModelSplice(model)
    return b"".join(splice.feed(piece) for piece in pieces)


@given(cuts(BODIES), MODELS)
@example([b'{"mod\\u00', b'65l":"a\\', b'"","model" :[{"}":"]', b'"}],"x":"model"}'], "c")
@example([b'{"model":tr', b"ue,", b'"model":{}', b"}"], "c")
@example([b"{", b" ", b"}"], "c")
def test_pieces_get_the_model_that_the_whole_would_get(pieces: list[bytes], model: str) -> None:
    body = b"".join(pieces)
    changed = spliced(pieces, model)
    if any(member.key == "model" for member in spans.members(body)):
        assert changed == rewrite.set_model(body, model)
    else:
        assert document(changed) == Pairs([*document(body), ("model", model)])
        end = body.rindex(b"}")
        comma = b"," if document(body) else b""
        assert changed == body[:end] + comma + b'"model":' + orjson.dumps(model) + body[end:]


@given(cuts(st.binary(max_size=60) | BODIES.map(lambda body: body[:-1] + b"!" + body)), MODELS)
def test_what_is_no_json_passes_alike_however_it_is_cut(pieces: list[bytes], model: str) -> None:
    assert spliced(pieces, model) == spliced([b"".join(pieces)], model)


@given(cuts(st.binary(max_size=60)), MODELS)
def test_what_is_no_object_passes_unchanged(pieces: list[bytes], model: str) -> None:
    body = b"".join(pieces)
    if body.lstrip()[:1] != b"{":
        assert spliced(pieces, model) == body


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    ['\\"', "😀", "}],"]
)
CONTENTS = st.one_of(
    TEXTS,
    st.none(),
    st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}), max_size=3),
    st.lists(TEXTS, max_size=3),
)
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": CONTENTS}),
    max_size=4,
)
CONVERSATIONS = st.builds(
    lambda turns, before, after, ascii_only, indent: json.dumps(
        {**before, "messages": turns, **after}, ensure_ascii=ascii_only, indent=indent
    ).encode(),
    TURNS,
    st.dictionaries(st.sampled_from(["model", "user", "stream"]), TEXTS, max_size=2),
    st.dictionaries(st.sampled_from(["temperature", "n"]), st.integers(), max_size=2),
    st.booleans(),
    st.sampled_from([None, 1]),
)


@given(CONVERSATIONS, st.data())
def test_a_head_tells_the_turns_that_are_there_and_begins_the_next(body: bytes, data: st.DataObject) -> None:
    whole = parse_call(Dialect.CHAT_COMPLETIONS, body)
    assert isinstance(whole, LlmCall)
    cut = body[: data.draw(st.integers(1, len(body)))]
    call = head.read(Dialect.CHAT_COMPLETIONS, cut)
    assert isinstance(call, LlmCall)
    assert call.model in (None, whole.model)
    assert call.user_id in (None, whole.user_id)
    assert len(call.messages) <= len(whole.messages)
    for number, (seen, meant) in enumerate(zip(call.messages, whole.messages, strict=False), 1):
        assert seen.role == meant.role
        if number < len(call.messages):
            assert seen == meant
        else:
            assert meant.text.startswith(seen.text)


@given(BODIES, st.data())
def test_a_head_of_any_object_is_one_and_says_nothing_that_the_whole_does_not(
    body: bytes, data: st.DataObject
) -> None:
    cut = body[: data.draw(st.integers(1, len(body)))]
    closed = head.close(cut)
    if b"{" not in cut:
        assert closed is None
        return
    assert closed is not None
    said = document(closed)
    # Only the last member may be there in part.
    assert said[:-1] == document(body)[: len(said[:-1])]
    # What is taken out of the head leaves a document that the rest still fits.
    rest = body[len(cut) :]
    names = iter([name for name, _ in document(body)])
    assert all(name in names for name, _ in document(spans.apply(cut, head.removals(cut)) + rest))


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda rest: b'{"messages":[' + rest))
def test_a_head_of_anything_is_read_or_is_not(cut: bytes) -> None:
    head.close(cut)
    head.removals(cut)
    for dialect in Dialect:
        head.read(dialect, cut)


@given(cuts(st.binary(max_size=200)), st.integers(0, 220), st.booleans())
def test_every_byte_goes_on_once_and_the_decision_hangs_on_the_bytes_alone(
    pieces: list[bytes], window: int, has_trailers: bool
) -> None:
    body = b"".join(pieces)
    exchange = StreamedExchange(window)
    assert exchange.receive(CALL) == Hold()
    decisions: list[Decide] = []
    sent: list[Forward] = []
    events: list[RequestBody | Other] = [RequestBody(piece, ends_request=False) for piece in pieces]
    events.append(TRAILERS if has_trailers else RequestBody(b"", ends_request=True))
    acknowledged = 0
    for event in [*events, events[-1]]:
        actions = [exchange.receive(event)]
        assert exchange.held_bytes <= window
        while actions:
            match actions.pop(0):
                case Decide() as decision:
                    assert not sent
                    decisions.append(decision)
                    actions = [*exchange.after_decision(decision.body), *actions]
                case Forward() as piece:
                    sent += piece.pieces()
                case Acknowledge(part):
                    assert part is Part.REQUEST_TRAILERS
                    acknowledged += 1
                case other:
                    assert other == Hold()
    (decision,) = decisions
    assert decision.is_head == (len(body) > window)
    assert decision.body == body[: window if decision.is_head else None]
    assert b"".join(piece.body for piece in sent) == body
    assert [piece.ends for piece in sent] == [False] * (len(sent) - 1) + [not has_trailers] * bool(sent)
    assert acknowledged == has_trailers


@given(st.integers(0, 3 * PIECE_BYTES), st.booleans())
def test_a_body_is_sent_on_in_pieces_that_envoy_takes(size: int, ends: bool) -> None:
    pieces = list(Forward(bytes(size), ends).pieces())
    assert sum(len(piece.body) for piece in pieces) == size
    assert all(0 < len(piece.body) <= PIECE_BYTES for piece in pieces if not piece.ends)
    assert sum(piece.ends for piece in pieces) == ends
