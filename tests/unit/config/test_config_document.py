"""YAML text to data with places: positions, and everything a hostile or broken file can try."""

from __future__ import annotations

from pathlib import Path

import pytest

from ext_proc.config.document import MAX_FILE_BYTES, Mark, parse, read_text
from ext_proc.core.errors import ConfigError

TEXT = """\
a: 1
list:
  - x: yes
    "y": 2024-01-01
  - [p, 'q']
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text, "f")
    return [str(problem) for problem in raised.value.problems]


def test_every_key_and_value_has_its_place() -> None:
    document = parse(TEXT, "f")
    assert document.data == {"a": 1, "list": [{"x": True, "y": "2024-01-01"}, ["p", "q"]]}
    assert document.keys == {
        ("a",): Mark(1, 1),
        ("list",): Mark(2, 1),
        ("list", 0, "x"): Mark(3, 5),
        ("list", 0, "y"): Mark(4, 5),
    }
    assert document.values == {
        (): Mark(1, 1),
        ("a",): Mark(1, 4),
        ("list",): Mark(3, 3),
        ("list", 0): Mark(3, 5),
        ("list", 0, "x"): Mark(3, 8),
        ("list", 0, "y"): Mark(4, 10),
        ("list", 1): Mark(5, 5),
        ("list", 1, 0): Mark(5, 6),
        ("list", 1, 1): Mark(5, 9),
    }


def test_a_place_that_is_not_there_is_that_of_what_is_around_it() -> None:
    document = parse(TEXT, "f")
    assert document.mark(("list", 0, "z", "deep")) == Mark(3, 5)
    assert document.mark(("list", 0, "x"), of_key=True) == Mark(3, 5)
    assert document.mark(("nothing",), of_key=True) == Mark(1, 1)


def test_columns_count_characters_not_bytes() -> None:
    assert parse("{ä𝄞: 1, b: 2}", "f").values[("b",)] == Mark(1, 12)


def test_aliases_are_copied_and_merged_keys_yield_to_written_ones() -> None:
    document = parse(
        "x: &x {a: 1, b: {c: 2}}\ny:\n  a: 3\n  <<: *x\nz: [*x, *x]\nw: {<<: [{d: 4}, *x]}\n", "f"
    )
    one = {"a": 1, "b": {"c": 2}}
    assert document.data == {"x": one, "y": {"a": 3, "b": {"c": 2}}, "z": [one, one], "w": {"d": 4, **one}}
    assert document.keys[("y", "a")] == Mark(3, 3)
    assert document.keys[("y", "b", "c")] == Mark(1, 18)
    document.data["z"][0]["b"]["c"] = 9
    assert document.data["z"][1] == one


SYNTAX = "check indentation, quotes and brackets here"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", '1:1: the file is empty — write at least "model_providers"'),
        ("# only this\n", '1:1: the file is empty — write at least "model_providers"'),
        ("null\n", '1:1: the file is empty — write at least "model_providers"'),
        ("- a\n", '1:1: the file is not a mapping of keys to values — begin with "model_providers:"'),
        (
            "a: 1\nb: [1, 2\nc: 3\n",
            f"3:2: this is not valid YAML: did not find expected ',' or ']' — {SYNTAX}",
        ),
        (
            "a: 1\n\tb: 1\n",
            "2:1: this is not valid YAML: a tab where only spaces may stand — use spaces",
        ),
        (
            "a:\n  - b: 1\n  \tc: 1\n",
            "3:3: this is not valid YAML: a tab where only spaces may stand — use spaces",
        ),
        ("a:\n\tb: 1\n", "2:1: this is not valid YAML: a tab where only spaces may stand — use spaces"),
        ("a: *hush\n", f"1:4: this is not valid YAML: found undefined alias — {SYNTAX}"),
        ("a: 1\n---\nb: 1\n", "2:1: a second YAML document — a file holds one: remove this one"),
        ("a: 1\nb: 2\na: 3\n", '3:1: the key "a" is here twice — keep one: the first is in line 1'),
        ("a: {1: x}\n", "1:5: this key is not text — put it in quotes"),
        ("on: x\n", "1:1: this key is not text — put it in quotes"),
        ("? [a]\n: b\n", "1:3: this key is not text — put it in quotes"),
        ("a: !!python/object:os.system x\n", "1:4: a YAML tag that this file does not use — remove the tag"),
        ("a: !mine {b: 1}\n", "1:4: a YAML tag that this file does not use — remove the tag"),
        ("a: !!int x\n", "1:4: this value does not fit its tag — put it in quotes"),
        (f"a: {'9' * 5000}\n", "1:4: this value does not fit its tag — put it in quotes"),
        ("a: 1\nb: \x07\n", "2:4: the character U+0007 may not stand in YAML — remove it"),
        ("a: &a [*a]\n", "1:4: an alias contains itself — write the value out"),
        ("a: &a {<<: *a}\n", "1:4: an alias contains itself — write the value out"),
        ("<<: 3\n", "1:5: only a mapping can be merged by << — name a mapping's anchor"),
        ("[" * 900, "1:33: nested more than 32 deep — no key of this file is so deep"),
        ("{a: " * 50_000, "1:129: nested more than 32 deep — no key of this file is so deep"),
    ],
)
def test_problems(text: str, expected: str) -> None:
    assert problems_of(text) == [f"f:{expected}"]


def test_every_duplicate_is_reported_at_once() -> None:
    assert [line.split(" — ")[0] for line in problems_of("a: {b: 1, b: 2}\nc: {d: 1, d: 2}\n")] == [
        'f:1:11: the key "b" is here twice',
        'f:2:11: the key "d" is here twice',
    ]


def test_a_small_file_cannot_grow_large() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    (problem,) = problems_of("\n".join(lines))
    assert problem.endswith("the file holds more than 100000 values, aliases expanded — write fewer")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: \xff\n", "1:4: the file is not UTF-8 text — save it as UTF-8"),
        (b"\xef\xbb\xbfa: 1\nb: \xe4\n", "2:4: the file is not UTF-8 text — save it as UTF-8"),
        (
            b"#" * (MAX_FILE_BYTES + 1),
            "1:1: the file is larger than 1 MiB — remove what this server does not need",
        ),
    ],
)
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        read_text(path)
    assert str(raised.value) == f"{path}:{expected}"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1:1: there is no such file — check the path"):
        read_text(tmp_path / "missing")
    with pytest.raises(ConfigError, match="1:1: this is a directory — name the file inside it"):
        read_text(tmp_path)
    path = tmp_path / "f"
    path.touch()
    with pytest.raises(ConfigError, match="1:1: the file cannot be read: Not a directory — "):
        read_text(path / "g")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert parse(read_text(path), "f").keys[("a",)] == Mark(1, 1)
