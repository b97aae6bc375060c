import pytest

from ext_proc.core import spans


def names(body: bytes) -> list[tuple[str, bytes]]:
    return [(member.key, body[member.value_start : member.end]) for member in spans.members(body)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", []),
        (b" {\n} ", []),
        (b'{"a":1}', [("a", b"1")]),
        (b'{"a" : -1.5e+300 , "b":null}', [("a", b"-1.5e+300"), ("b", b"null")]),
        (b'{"a":"}{][,:\\"","b":[]}', [("a", b'"}{][,:\\""'), ("b", b"[]")]),
        (b'{"a":{"a":{"a":[{"]":"}"}]}},"b":true}', [("a", b'{"a":{"a":[{"]":"}"}]}}'), ("b", b"true")]),
        (b'{"mod\\u0065l":"x","model":"y"}', [("model", b'"x"'), ("model", b'"y"')]),
        ('{"é":"ü"}'.encode(), [("é", '"ü"'.encode())]),
        (b'{"":""}', [("", b'""')]),
        (b'{"\\\\":"\\\\"}', [("\\", b'"\\\\"')]),
    ],
)
def test_members_are_found_in_order_whatever_is_in_them(
    body: bytes, expected: list[tuple[str, bytes]]
) -> None:
    assert names(body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"x":1}', b"{}"),
        (b'{ "x":1 }', b"{  }"),
        (b'{"x":1,"a":2}', b'{"a":2}'),
        (b'{"a":2,"x":1}', b'{"a":2}'),
        (b'{"a":2 , "x":1 , "b":3}', b'{"a":2 , "b":3}'),
        (b'{"x":1,"x":[2],"a":2,"x":{},"x":4}', b'{"a":2}'),
        (b'{"x":1,"x":2}', b"{}"),
        (b'{"a":{"x":1}}', b'{"a":{"x":1}}'),
    ],
)
def test_removing_a_member_takes_its_comma_along(body: bytes, expected: bytes) -> None:
    assert spans.apply(body, spans.removals(body, "x")) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"{}", b'{"m":1}'), (b'{ "a":2}', b'{"m":1, "a":2}'), (b" { } ", b' {"m":1 } ')],
)
def test_inserting_puts_a_member_first(body: bytes, expected: bytes) -> None:
    assert spans.apply(body, [spans.insertion(body, "m", b"1")]) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","messages":[]}',
        b'{"messages":[{"model":"b"}],"model":"a"}',
        b'{"model":"a","x":"\\"model\\":"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"model":"a","model":"b"}',
        b'{"model":"a\\"b"}',
        b'{"x":"model","y":{"model":"z"},"model" :\n"a"}',
        b'{"x":"\\"model","model":"a"}',
        b'{"model":{},"model":"a"}',
        b'{"x":{"\\u006dodel":"b"},"model":"a"}',
    ],
)
def test_the_short_way_to_the_model_finds_what_the_long_way_finds(body: bytes) -> None:
    assert spans.find_model(body, is_text=True) == spans.find(body, "model") != []


@pytest.mark.parametrize("body", [b'{"x":{"model":"a"}}', b'{"model":null}', b'{"model":["a"],"x":"b"}'])
def test_what_no_parser_took_for_a_model_is_looked_for_member_by_member(body: bytes) -> None:
    assert spans.find_model(body, is_text=False) == spans.find(body, "model")


@pytest.mark.parametrize("mark", [b"[],", b'{"a":0},'])
def test_a_body_of_little_but_structure_is_intricate(mark: bytes) -> None:
    assert spans.is_intricate(b'{"x":[' + mark * 500_000 + b"0]}")
    assert not spans.is_intricate(b'{"x":[' + mark * 100_000 + b"0]}")


def test_a_body_of_megabytes_of_text_is_not_intricate() -> None:
    assert not spans.is_intricate(b'{"x":"' + b"Words, words, and here is one bracket: [. " * 100_000 + b'"}')


@pytest.mark.parametrize("text", [b"", b"x", b"a word or two "])
def test_a_body_is_intricate_from_one_mark_too_many_wherever_they_stand(text: bytes) -> None:
    marks = b"".join(text + mark for mark in (b"{", b"[", b":")) * (spans.MAX_MARKS // 3)
    marks += b":" * (spans.MAX_MARKS % 3)
    assert not spans.is_intricate(marks + text * 5000)
    assert spans.is_intricate(text * 5000 + marks + b"[")


def test_bytes_that_are_no_json_end_the_scan() -> None:
    for body in (b'{"a":', b'{"a":[1,{', b'{"a', b'{"a":"b'):
        list(spans.members(body))
