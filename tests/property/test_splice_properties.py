"""The model and the inline policies in any JSON: what must change changes, every other byte stays."""

from __future__ import annotations

import json
from typing import Any

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from ext_proc.core import inline, rewrite, spans
from ext_proc.core.parse import parse_call
from ext_proc.core.types import Dialect, LlmCall

SPACE = st.text(alphabet=" \t\r\n", max_size=3)
NAMES = st.sampled_from(
    ["model", "models", "mode", "Model", "", "metadata", "routing_preferences", "archgw_preference_config"]
) | st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=6)
NUMBERS = st.sampled_from(
    ["0", "-0", "1E400", "1e-7", "-1.50", "9" * 40, "0." + "3" * 40]
) | st.integers().map(str)
MODELS = st.sampled_from(["gpt", "", 'a"b\\', "größe/ü😀", "</script>", "model"])


@st.composite
def a_string(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """A JSON string that escapes as it likes: `\\u` forms, short ones, a solidus, or nothing."""
    written = []
    for char in draw(texts):
        plain = json.dumps(char, ensure_ascii=False)[1:-1]
        escaped = json.dumps(char)[1:-1] if ord(char) > 0x7E else f"\\u{ord(char):04x}"
        written.append(draw(st.sampled_from([plain, plain, escaped, escaped.upper().replace("\\U", "\\u")])))
    return '"' + "".join(written).replace("/", draw(st.sampled_from(["/", "\\/"]))) + '"'


TEXTS = NAMES | st.sampled_from(['"model":"x"', "\\", '\\"', "[{", "}],", ',"model"', "\u2028", "\x7f"])
STRINGS = a_string(TEXTS)
SCALARS = st.sampled_from(["null", "true", "false"]) | NUMBERS | STRINGS


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(SPACE, st.lists(inner, max_size=3), SPACE).map(
        lambda x: f"[{x[0]}{','.join(x[1])}{x[2]}]"
    )


def objects(
    inner: st.SearchStrategy[str], names: st.SearchStrategy[str] = NAMES, size: int = 4
) -> st.SearchStrategy[str]:
    member = st.tuples(SPACE, a_string(names), SPACE, SPACE, inner, SPACE).map(
        lambda x: f"{x[0]}{x[1]}{x[2]}:{x[3]}{x[4]}{x[5]}"
    )
    return st.tuples(SPACE, st.lists(member, max_size=size)).map(
        lambda x: "{" + (",".join(x[1]) or x[0]) + "}"
    )


VALUES = st.recursive(SCALARS, lambda inner: arrays(inner) | objects(inner), max_leaves=6)
BODIES = st.tuples(SPACE, objects(VALUES), SPACE).map(lambda x: "".join(x).encode())
"""JSON objects as bytes: duplicate keys, escapes in keys, odd white space, big numbers, any nesting."""


class Pairs(list[tuple[str, Any]]):
    """An object's members in order, duplicates kept, so that two documents compare member by member."""


def document(body: bytes) -> Any:
    """All that a body says; numbers as their digits."""
    return json.loads(body, object_pairs_hook=Pairs, parse_int=str, parse_float=str)


def without(pairs: Pairs, name: str) -> Pairs:
    return Pairs(pair for pair in pairs if pair[0] != name)


@given(BODIES, MODELS)
@example(b'{"mod\\u0065l":"a","model":"b"}', "c")
@example(b'{"\\u006dodel":"a"}', "c")
@example(b'{"messages":[{"content":"\\\\\\"model\\":\\"x\\""}],"model":{"model":[]}}', "c")
@example(b' {\n"x":{"model":"a"} }', "c")
def test_every_model_is_replaced_and_nothing_else(body: bytes, model: str) -> None:
    before = document(body)
    places = [member for member in spans.members(body) if member.key == "model"]
    changed = rewrite.set_model(body, model)

    expected = Pairs((key, model if key == "model" else value) for key, value in before)
    if not places:
        expected.insert(0, ("model", model))
    assert document(changed) == expected

    # The same bytes around the values, by cutting them out of both.
    value = orjson.dumps(model)
    kept, position = [], 0
    for place in places:
        kept.append(body[position : place.value_start])
        position = place.end
    kept.append(body[position:])
    if places:
        assert changed == value.join(kept)
    else:
        start = body.index(b"{") + 1
        inserted = b'"model":' + value + (b"," if before else b"")
        assert changed == body[:start] + inserted + body[start:]


@given(BODIES, MODELS)
def test_a_call_that_was_read_is_rewritten_like_one_that_was_not(body: bytes, model: str) -> None:
    call = parse_call(Dialect.EMBEDDINGS, body)
    if not isinstance(call, LlmCall) or call.inline_policies is not None:
        return
    changed = rewrite.rewrite_body(body, call, model)
    if call.model == model and len(spans.find(body, "model")) == 1:
        assert changed is body
    else:
        assert changed == rewrite.set_model(body, model)


@given(BODIES)
def test_the_scanner_finds_what_a_parser_finds(body: bytes) -> None:
    found = [(member.key, document(body[member.value_start : member.end])) for member in spans.members(body)]
    assert found == document(body)


@given(BODIES)
@example(
    b'{"routing_preferences":[],"metadata":{"archgw_preference_config":"","archgw_preference_config":1}}'
)
def test_inline_policies_go_and_the_rest_stays(body: bytes) -> None:
    changed = spans.apply(body, inline.removals(body))
    expected = without(document(body), "routing_preferences")
    assert document(changed) == Pairs(
        (key, without(value, "archgw_preference_config"))
        if key == "metadata" and isinstance(value, Pairs)
        else (key, value)
        for key, value in expected
    )
    remaining = iter(body)
    assert all(byte in remaining for byte in changed)


@given(BODIES, MODELS)
def test_the_length_that_envoy_is_told_is_exact(body: bytes, model: str) -> None:
    changed = rewrite.set_model(body, model)
    mutation = rewrite.with_body(rewrite.Mutation(()), changed, was_encoded=False)
    assert dict(mutation.set)["content-length"] == str(len(changed)).encode()
    assert mutation.body == changed


@given(
    st.binary(max_size=60) | BODIES.flatmap(lambda body: st.integers(0, len(body)).map(lambda n: body[:n]))
)
def test_a_scan_of_anything_ends_inside_of_it(body: bytes) -> None:
    if b"{" not in body:
        return
    position = 0
    for member in spans.members(body):
        assert position <= member.start < member.value_start <= member.end <= len(body)
        position = member.end
