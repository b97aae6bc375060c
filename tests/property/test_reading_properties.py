"""Bytes from anybody: reading them never raises, and never goes past a limit."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import brotli
import orjson
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from ext_proc.core import answer, inline, prompt
from ext_proc.core.encodings import decode
from ext_proc.core.errors import Reason
from ext_proc.core.parse import dialect_of, parse_call
from ext_proc.core.prompt import Variant
from ext_proc.core.types import Dialect, LlmCall, Message, Policy

FIELDS = st.sampled_from(
    [
        "model",
        "messages",
        "role",
        "content",
        "type",
        "text",
        "system",
        "input",
        "instructions",
        "prompt",
        "stream",
        "user",
        "conversation",
        "id",
        "metadata",
        "user_id",
        "routing_preferences",
        "archgw_preference_config",
        "name",
        "description",
        "models",
        "usage",
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(
        ["user", "text", "message", "tool_result", "function_call_output", "- name: a\n  model: b"]
    ),
)
DATA = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=12,
)
UNREAD = {Reason.BODY_EMPTY, Reason.BODY_UNREADABLE, Reason.BODY_TOO_INTRICATE}
COMPRESS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=1),
    "zstd": zstandard.ZstdCompressor().compress,
}
ENCODINGS = st.sampled_from(sorted(COMPRESS))
PIECES = [*"<>|/\\{}\"'_ \n", "im_end", "conversation", "routes", "é", "\ud800", "｜", "<|", "|>", "</"]
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.sampled_from(
    ["</conversation>", "</routes>", "<|im_start|>", "<|<|x|>|>", "<|endoftext|>"]
)
ANSWERS = st.lists(
    st.sampled_from([*"{}[]\"'`:,\\ \nx", "route", '"route":', "code", "don't", "null", "other"]), max_size=12
).map("".join)


@given(st.sampled_from(Dialect), st.binary(max_size=80))
def test_any_bytes_are_a_call_or_a_reason(dialect: Dialect, body: bytes) -> None:
    call = parse_call(dialect, body)
    assert isinstance(call, LlmCall) or call in UNREAD


@given(st.sampled_from(Dialect), st.dictionaries(FIELDS, DATA, max_size=6))
def test_any_object_is_a_call_or_unreadable(dialect: Dialect, fields: dict[str, Any]) -> None:
    call = parse_call(dialect, orjson.dumps(fields))
    if isinstance(call, LlmCall):
        assert call.model == fields.get("model")
        assert all(
            isinstance(part, str) for message in call.messages for part in (message.role, message.text)
        )
    else:
        assert call is Reason.BODY_UNREADABLE


@given(st.text(max_size=10), st.text(max_size=40))
def test_any_request_line_has_a_dialect_or_none(method: str, path: str) -> None:
    assert dialect_of(method, path) is None
    assert dialect_of("POST", f"{path}/v1/messages?{path}") in (None, Dialect.MESSAGES)


@given(DATA | st.text(alphabet=st.sampled_from(list("ab:-[]{}&*!|>'\"#%@`\\\n ,?~\x00")), max_size=60))
@example("- name: &x a\n  model: *x")
def test_any_inline_policies_are_bounded_and_fit_in_a_header(given_: Any) -> None:
    for fields in ({"routing_preferences": given_}, {"metadata": {"archgw_preference_config": given_}}):
        policies = inline.read(fields)
        assert policies is not None
        assert len(policies) <= inline.MAX_POLICIES
        for given_policy in policies:
            name = given_policy.policy.name
            assert name == name.strip() != ""
            assert name.isprintable()
            assert len(name) <= inline.MAX_NAME_CHARS
            assert given_policy.models


@given(st.binary(max_size=400), ENCODINGS, st.integers(0, 500))
def test_what_was_compressed_comes_back_unless_it_is_too_large(
    body: bytes, encoding: str, limit_bytes: int
) -> None:
    decoded = decode(COMPRESS[encoding](body), encoding, limit_bytes)
    if len(body) > limit_bytes:
        assert decoded is Reason.BODY_TOO_LARGE
    elif body:
        assert decoded == body


@given(
    st.binary(max_size=400),
    ENCODINGS,
    st.data(),
    st.integers(0, 500),
    st.sampled_from([*COMPRESS, "x", "gzip, br"]),
)
def test_damaged_bytes_are_a_reason_or_no_longer_than_the_limit(
    body: bytes, encoding: str, data: st.DataObject, limit_bytes: int, claimed: str
) -> None:
    whole = bytearray(COMPRESS[encoding](body))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    decoded = decode(damaged, claimed, limit_bytes)
    assert isinstance(decoded, Reason) or len(decoded) <= limit_bytes


@given(st.lists(HOSTILE, min_size=1, max_size=3), st.sampled_from(Variant))
def test_no_text_closes_a_block_or_a_turn(texts: list[str], variant: Variant) -> None:
    harmless = prompt.build((Policy("n", "d"),), (Message("user", "x"),) * len(texts), variant).text
    turns = tuple(Message("user", text) for text in texts)
    hostile = prompt.build((Policy("n", texts[0]),), turns, variant).text
    for end in ("</conversation>", "</routes>"):
        assert hostile.count(end) == harmless.count(end)
    assert not [piece for piece in hostile.split("<|")[1:] if piece.partition("|>")[1] and _is_token(piece)]
    written = json.loads(prompt.quoted(texts[0], variant))
    assert written == (texts[0] if variant is Variant.MODEL_CARD else texts[0].replace("\ud800", "?"))


def _is_token(piece: str) -> bool:
    name = piece.partition("|>")[0]
    return 0 < len(name) <= 64 and not any(char.isspace() or char in "<>|" for char in name)


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text(max_size=30)), max_size=6),
    st.integers(1, 40),
)
def test_chosen_turns_fit_the_budget_and_end_with_the_users_newest(
    given_: list[tuple[str, str]], budget: int
) -> None:
    messages = tuple(Message(*pair) for pair in given_)
    turns = prompt.select_turns(messages, len, budget)
    asked = [message for message in messages if message.role == "user" and message.text.strip()]
    assert bool(turns) == bool(asked)
    if turns:
        assert sum(len(turn.text) for turn in turns) <= budget
        assert turns[-1].role == "user"
        assert turns[-1].text == asked[-1].text or prompt.ELLIPSIS in turns[-1].text
        earlier = [message for message in messages if message.role != "system" and message.text.strip()]
        end = max(index for index, message in enumerate(earlier) if message.role == "user")
        assert list(turns[:-1]) == earlier[end - len(turns) + 1 : end]


@given(ANSWERS | st.text(max_size=30))
@example('{"route": "')
@example("{'route': 'don\\")
@example('{"route": [')
def test_any_answer_names_a_policy_or_none_or_is_garbled(text: str) -> None:
    policies = (Policy("code", ""), Policy("don't", ""))
    try:
        found = answer.read(text, policies)
    except answer.Garbled:
        return
    assert found.name in ("code", "don't", None)
    assert 0 <= found.start <= found.end <= len(text)
    if found.name is not None:
        assert found.name in text[found.start : found.end].casefold().replace("\\", "")


@given(st.text(min_size=1, max_size=20), st.sampled_from(Variant))
def test_every_name_that_is_written_is_read_back(name: str, variant: Variant) -> None:
    if name.strip().casefold() in ("other", ""):
        return
    assert answer.read(answer.written(name, variant), (Policy(name, ""),)).name == name
