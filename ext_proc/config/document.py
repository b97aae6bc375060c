"""YAML text to plain data that remembers where each key and value stood.

Only the tags of JSON's data model are understood, so nothing in a file can construct an object. Aliases
are expanded while copying, each copy counted, so a small file cannot grow into a large one.
"""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from ext_proc.core.errors import ConfigError, Problem

Path = tuple[str | int, ...]
"""The way to a value: keys and list indexes from the top."""

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000
MAX_SUGGESTIONS = 100

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")

_YAML = "tag:yaml.org,2002:"
_MERGE = _YAML + "merge"
_SCALARS: Mapping[str, Callable[[SafeConstructor, yaml.ScalarNode], object]] = {
    _YAML + "str": lambda _, node: node.value,
    _YAML + "timestamp": lambda _, node: node.value,
    _YAML + "value": lambda _, node: node.value,
    _YAML + "null": lambda _, node: None,
    _YAML + "bool": SafeConstructor.construct_yaml_bool,
    _YAML + "int": SafeConstructor.construct_yaml_int,
    _YAML + "float": SafeConstructor.construct_yaml_float,
}


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file. Both count from 1; columns count characters."""

    line: int
    column: int


START = Mark(1, 1)


@dataclass(frozen=True, slots=True)
class Document:
    """One file's data and the place of every key and value in it. `file` is the name to show."""

    file: str
    data: dict[str, Any]
    keys: Mapping[Path, Mark] = field(repr=False)
    values: Mapping[Path, Mark] = field(repr=False)

    def mark(self, path: Path, *, of_key: bool = False) -> Mark:
        """The place of a value (or its key), or of the nearest thing around it that has one."""
        if of_key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, START)


class Report:
    """Collects the problems of one file, in any order.

    `read` has what was read besides it, each file with a digest of its content, None if it could not be.
    `needs_secrets`: whether a secret that is not here is an error; a warning for who does not serve.
    """

    def __init__(self, file: str, *, needs_secrets: bool = True) -> None:
        self._file = file
        self.needs_secrets = needs_secrets
        self._absent: set[Problem] = set()
        self.read: dict[FilePath, bytes | None] = {}
        self._problems: set[Problem] = set()
        self._suggestions = 0

    def add(self, mark: Mark, text: str, hint: str = "", *, is_warning: bool = False) -> None:
        self._problems.add(Problem(self._file, mark.line, mark.column, text, hint, is_warning))

    def add_absent(self, mark: Mark, text: str, hint: str) -> None:
        """Report a secret that is not on this machine."""
        if self.needs_secrets:
            self.add(mark, text, hint)
            return
        problem = Problem(self._file, mark.line, mark.column, f"{text}: serve will need it", hint, True)
        self._problems.add(problem)
        self._absent.add(problem)

    def did_you_mean(self, name: str, options: Iterable[str]) -> str | None:
        """A hint naming the option that `name` may stand for."""
        close = self.closest(name, options)
        return None if close is None else f'did you mean "{shown(close)}"?'

    def closest(self, name: str, options: Iterable[str]) -> str | None:
        """The option that `name` may stand for. Slow, so done only so often per file."""
        self._suggestions += 1
        if self._suggestions > MAX_SUGGESTIONS:
            return None
        close = difflib.get_close_matches(name.casefold(), by_case := {o.casefold(): o for o in options}, n=1)
        return by_case[close[0]] if close else None

    @property
    def has_errors(self) -> bool:
        return any(not problem.is_warning for problem in self._problems)

    @property
    def absent(self) -> tuple[Problem, ...]:
        """The warnings of secrets that are not on this machine, in file order."""
        return tuple(sorted(self._absent))

    def sorted(self) -> tuple[Problem, ...]:
        return tuple(sorted(self._problems))


def read_text(path: FilePath) -> str:
    """The text of a file. Errors: ConfigError when it cannot be read, is too large or is not UTF-8."""
    report = Report(str(path))
    raw = b""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except IsADirectoryError:
        report.add(START, "this is a directory", "name the file inside it, e.g. arch_config.yaml")
    except FileNotFoundError:
        report.add(START, "there is no such file", "check the path")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        report.add(START, f"the file cannot be read: {reason}", "check its permissions")
    if len(raw) > MAX_FILE_BYTES:
        report.add(START, "the file is larger than 1 MiB", "remove what this server does not need")
        raw = b""
    text = ""
    try:
        raw = raw.removeprefix(codecs.BOM_UTF8)
        text = raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        report.add(_mark_at(before, len(before)), "the file is not UTF-8 text", "save it as UTF-8")
    if report.has_errors:
        raise ConfigError(report.sorted())
    return text


def parse(text: str, file: str) -> Document:
    """Parse one YAML document whose top level is a mapping.

    Errors: ConfigError, with the one problem of a text that is not YAML, or with every duplicate key,
    unknown tag and key that is not text.
    """
    report = Report(file)
    node = _compose(text, report)
    copy = _Copy(report)
    data: object = None
    if node is not None:
        if isinstance(node, yaml.MappingNode):
            data = copy.value(node, ())
        elif _is_null(node):
            report.add(START, "the file is empty", 'write at least "model_providers"')
        else:
            mark = _mark_of(node)
            report.add(mark, "the file is not a mapping of keys to values", 'begin with "model_providers:"')
    if report.has_errors or not isinstance(data, dict):
        raise ConfigError(report.sorted())
    return Document(file, data, copy.keys, copy.values)


def _compose(text: str, report: Report) -> yaml.Node | None:
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        mark = _mark_at(text, bad.start())
        report.add(mark, f"the character U+{ord(bad.group()):04X} may not stand in YAML", "remove it")
        return None
    try:
        # The composer recurses in C without a bound: the events are counted before it may run.
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                report.add(
                    _mark_of(event), f"nested more than {MAX_DEPTH} deep", "no key of this file is so deep"
                )
                return None
        node: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = _from_yaml(error.problem_mark or error.context_mark)
        problem = error.problem or error.context or "unreadable"
        if problem == "but found another document":
            report.add(mark, "a second YAML document", "a file holds one: remove this one")
            return None
        if problem.startswith("exceeded maximum nesting"):  # PyYAML from 6.0.4 on
            report.add(mark, f"nested more than {MAX_DEPTH} deep", "no key of this file is so deep")
            return None
        if _is_tab(text, mark):
            report.add(mark, "this is not valid YAML: a tab where only spaces may stand", "use spaces")
            return None
        # An alias or an anchor could be a secret that begins with * or &: its name is not repeated.
        what = re.sub(r"(alias|anchor|handle) ['\"].*", r"\1", problem, flags=re.DOTALL)
        report.add(mark, f"this is not valid YAML: {what}", "check indentation, quotes and brackets here")
        return None
    except yaml.YAMLError:
        report.add(START, "this is not valid YAML", "check it with a YAML linter")
        return None
    if node is None:
        report.add(START, "the file is empty", 'write at least "model_providers"')
    return node


class _Copy:
    """Copies nodes to plain data, noting where each stood."""

    def __init__(self, report: Report) -> None:
        self.keys: dict[Path, Mark] = {}
        self.values: dict[Path, Mark] = {}
        self._report = report
        self._constructor = SafeConstructor()
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: yaml.Node, path: Path) -> object:
        mark = _mark_of(node)
        self._count += 1
        if self._count > MAX_NODES:
            if self._count == MAX_NODES + 1:
                self._report.add(
                    mark, f"the file holds more than {MAX_NODES} values, aliases expanded", "write fewer"
                )
            return None
        if id(node) in self._open or len(path) > MAX_DEPTH:
            self._report.add(mark, "an alias contains itself", "write the value out")
            return None
        self.values[path] = mark
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _YAML + "map":
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode) and node.tag == _YAML + "seq":
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))
        self._unknown_tag(node)
        return None

    def _scalar(self, node: yaml.ScalarNode) -> object:
        construct = _SCALARS.get(node.tag)
        if construct is None:
            self._unknown_tag(node)
            return None
        try:
            return construct(self._constructor, node)
        except (ValueError, KeyError, IndexError, OverflowError):
            self._report.add(_mark_of(node), "this value does not fit its tag", "put it in quotes")
            return None

    def _unknown_tag(self, node: yaml.Node) -> None:
        self._report.add(_mark_of(node), "a YAML tag that this file does not use", "remove the tag")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        result: dict[str, object] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            key = key_node.value if _is_text(key_node) else None
            mark = _mark_of(key_node)
            if key is None:
                self._report.add(mark, "this key is not text", "put it in quotes")
                continue
            if key in result:
                first = self.keys[(*path, key)]
                self._report.add(
                    mark,
                    f'the key "{shown(key)}" is here twice',
                    f"keep one: the first is in line {first.line}",
                )
                continue
            self.keys[(*path, key)] = mark
            result[key] = self.value(value_node, (*path, key))
        for source in merged:
            self._merge(source, path, result)
        return result

    def _merge(self, source: yaml.Node, path: Path, into: dict[str, object]) -> None:
        """Add what `<<` brings. Keys that are there already win. Source: yaml.org/type/merge.html"""
        if not isinstance(source, yaml.MappingNode):
            self._report.add(
                _mark_of(source), "only a mapping can be merged by <<", "name a mapping's anchor"
            )
            return
        aside = _Copy(self._report)
        aside._open, aside._count = self._open, self._count
        brought = aside.value(source, path)
        self._count = aside._count
        if not isinstance(brought, dict):
            return
        fresh = brought.keys() - into.keys()
        into.update({key: brought[key] for key in brought if key in fresh})
        depth = len(path)
        for mine, theirs in ((self.keys, aside.keys), (self.values, aside.values)):
            mine.update({at: mark for at, mark in theirs.items() if len(at) > depth and at[depth] in fresh})


def shown(text: str) -> str:
    """A name from the file as a message may repeat it: short, and on one line."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= 60 else clean[:59] + "…"


def _is_text(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag in {
        _YAML + "str",
        _YAML + "timestamp",
        _YAML + "value",
    }


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _YAML + "null"


def _mark_of(thing: yaml.Node | yaml.Event) -> Mark:
    return _from_yaml(thing.start_mark)


def _from_yaml(mark: Any) -> Mark:
    """PyYAML's own marks count from 0, and those of libyaml's errors may be missing."""
    return START if mark is None else Mark(mark.line + 1, mark.column + 1)


def _is_tab(text: str, mark: Mark) -> bool:
    line = _BREAK.split(text, maxsplit=mark.line)[mark.line - 1 : mark.line]
    return "".join(line)[mark.column - 1 : mark.column] == "\t"


def _mark_at(text: str, offset: int) -> Mark:
    lines = _BREAK.split(text[:offset])
    return Mark(len(lines), len(lines[-1]) + 1)
