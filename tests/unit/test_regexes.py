"""Every regex of the package takes linear time, whatever text it is given: no backtracking into itself.

Python's engine backtracks, so a regex over text that somebody else wrote could hold the event loop for
minutes. What is checked is the parsed pattern, not a clock: an unbounded repeat that may give back what it
took must be told from its neighbours by their characters.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import ext_proc

ROOT = Path(ext_proc.__file__).parent
FUNCTIONS = {"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
FROM_ANYWHERE = ("search", "sub", "subn", "split", "findall", "finditer")
"""What tries each place of a text in turn, so that a repeat in front costs its length at each."""

MANY = 1_000
"""A repeat with a lower bound than this is a constant. (Texts that these see are bounded themselves.)"""

SAMPLE = [chr(code) for code in range(0x180)] + ["ß", "λ", "中", "\u2028", "😀"]


def found() -> Iterator[tuple[str, Any, int, bool]]:
    """The place, text, flags of every regex, and whether it may begin anywhere in a text."""
    for file in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(file.read_text())
        source = file.read_text()
        calls = [
            (node, name)
            for node in ast.walk(tree)
            for name in [name_of(node)]
            if isinstance(node, ast.Call) and name
        ]
        if not calls:
            continue
        module = importlib.import_module(".".join(file.relative_to(ROOT.parent).with_suffix("").parts))
        named = {
            ast.unparse(node.value): node.targets[0].id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for call, function in calls:
            text = ast.unparse(call.args[0])
            pattern = eval(text, dict(vars(module)))
            given = call.args[1:2] if function == "compile" else []
            flags = [*given, *(word.value for word in call.keywords if word.arg == "flags")]
            value = int(eval(ast.unparse(flags[0]), dict(vars(module)))) if flags else 0
            name = named.get(ast.unparse(call))
            used = (
                any(f"{name}.{method}" in source for method in FROM_ANYWHERE)
                if name
                else function in (*FROM_ANYWHERE, "compile") and ".fullmatch" not in source
            )
            yield f"{file.relative_to(ROOT)}:{call.lineno}", pattern, value, used


def name_of(node: ast.AST) -> str:
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr in FUNCTIONS
    ):
        return node.func.attr
    return ""


BACKTRACKS = ("MAX_REPEAT", "MIN_REPEAT")
REPEATS = (*BACKTRACKS, "POSSESSIVE_REPEAT")


def characters(items: Any, flags: int) -> frozenset[str]:
    """All that some part of a pattern can take, of the sample."""
    taken: set[str] = set()
    for operator, argument in items:
        kind = str(operator)
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            single = parser.SubPattern(parser.State(), [(operator, argument)])
            compiled = re._compiler.compile(single, flags)  # type: ignore[attr-defined]
            taken.update(char for char in SAMPLE if compiled.fullmatch(char))
        else:
            for part in parts(kind, argument):
                taken |= characters(part, flags)
    return frozenset(taken)


def parts(kind: str, argument: Any) -> list[Any]:
    """The patterns inside one item."""
    if kind in REPEATS:
        return [argument[2]]
    if kind == "SUBPATTERN":
        return [argument[3]]
    if kind == "BRANCH":
        return list(argument[1])
    if kind in ("ASSERT", "ASSERT_NOT"):
        return [argument[1]]
    return [argument] if kind == "ATOMIC_GROUP" else []


def least(items: Any) -> int:
    return int(parser.SubPattern(parser.State(), list(items)).getwidth()[0])


def is_open(kind: str, argument: Any) -> bool:
    """Whether an item may take any number, and give back some of it."""
    return kind in BACKTRACKS and argument[1] >= MANY


def flat(items: Any) -> list[tuple[str, Any, Any]]:
    """A sequence with its groups opened: kind, argument, and the item itself."""
    sequence: list[tuple[str, Any, Any]] = []
    for item in items:
        kind, argument = str(item[0]), item[1]
        if kind == "SUBPATTERN":
            sequence += flat(argument[3])
        else:
            sequence.append((kind, argument, item))
    return sequence


def slow(items: Any, flags: int) -> Iterator[str]:
    """What in a pattern may take more than linear time."""
    sequence = flat(items)
    for number, (kind, argument, item) in enumerate(sequence):
        for part in parts(kind, argument):
            yield from slow(part, flags)
        if not is_open(kind, argument):
            continue
        inner = [other for other in flat(argument[2]) if str(other[0]) in REPEATS]
        if inner:
            first = flat(argument[2])[0]
            begins = characters([first[2]], flags)
            rest = frozenset().union(*(characters([other[2]], flags) for other in inner))
            if first[0] in REPEATS or begins & rest:
                yield "a repeat in a repeat"
        taken = characters([item], flags)
        for after, given, other in sequence[number + 1 :]:
            others = characters([other], flags)
            if is_open(after, given) and others & taken:
                yield "two repeats of the same characters in a row"
                break
            if least([other]) and not others & taken:
                break


def problems(pattern: Any, flags: int, *, from_anywhere: bool) -> list[str]:
    tree = parser.parse(pattern, flags)
    texts = isinstance(pattern, str)
    flags = tree.state.flags if texts else tree.state.flags | re.ASCII
    result = list(slow(tree, flags & ~re.ASCII if texts and not flags & re.ASCII else flags & ~re.UNICODE))
    sequence = flat(tree)
    if from_anywhere and len(sequence) > 1:
        kind, argument, _ = sequence[0]
        if kind in REPEATS and argument[1] >= MANY and least([sequence[1][2]]):
            result.append("a repeat in front of something else, tried at each place")
    return result


EVERY = list(found())


def test_they_are_found() -> None:
    assert len(EVERY) >= 40
    assert any(place.startswith("core/redact.py") for place, *_ in EVERY)
    assert any(place.startswith("core/judging.py") and anywhere for place, _, _, anywhere in EVERY)


@pytest.mark.parametrize(("place", "pattern", "flags", "anywhere"), EVERY, ids=[each[0] for each in EVERY])
def test_a_regex_takes_linear_time(place: str, pattern: Any, flags: int, anywhere: bool) -> None:
    assert problems(pattern, flags, from_anywhere=anywhere) == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"(\w+\s?)*$",
        r"(.*)*x",
        r"\s*\n(.*?)\n?x",
        r"a*a*b",
        r"(?:\s*\w+)*!",
        r".*,.*,x",
    ],
)
def test_what_is_slow_is_seen(pattern: str) -> None:
    assert problems(pattern, re.DOTALL, from_anywhere=False)


def test_so_is_what_is_slow_from_anywhere() -> None:
    assert problems(r"\s+x", 0, from_anywhere=True)
    assert not problems(r"\s+x", 0, from_anywhere=False)
    assert not problems(r"\s+", 0, from_anywhere=True)


@pytest.mark.parametrize("pattern", [r"(?:/[^/]+)*", r"[a-z]+-[0-9]+", r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'])
def test_what_is_not_is_not(pattern: str) -> None:
    assert problems(pattern, 0, from_anywhere=False) == []
