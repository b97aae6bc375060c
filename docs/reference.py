"""The tables of docs/configuration.md from the schema: `python docs/reference.py` writes them anew.

And in docs/migrating.md what `check` says of archgw's and Plano's own keys.

Keys, their order, types, bounds and defaults are the schema's. What a key means stays in the page, and its
default where the schema says None: both are taken from the row that is there. A key without a meaning fails
the tests.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import yaml
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from ext_proc.config import envoy_schema, rollout_schema, schema
from ext_proc.config.foreign import FOREIGN
from ext_proc.config.section import Section

PAGE = Path(__file__).parent / "configuration.md"
MIGRATING = Path(__file__).parent / "migrating.md"
HEAD = "| key | type | default | what |\n|---|---|---|---|\n"

_TABLE = re.compile(r"<!-- keys: (\w+) -->\n\n(.*?)<!-- end -->\n", re.DOTALL)
_FOREIGN = re.compile(r"<!-- foreign -->\n.*?<!-- end -->\n", re.DOTALL)
_ROW = re.compile(r"^\| `([^`]+)` \| .*? \| (.*?) \| (.*) \|$", re.MULTILINE)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)

KINDS = {
    "cluster": "name",
    "credential_header": "header",
    "description": "text",
    "device": "device",
    "example": "text",
    "file": "path",
    "host": "host",
    "identity": "id",
    "ip": "IP address",
    "mode": "file mode",
    "model": "`prefix/id`",
    "money": "number",
    "name": "name",
    "number": "number",
    "percent": "percent",
    "share": "0–1",
    "socket": "path",
    "status": "status",
    "text_of": "text",
    "threshold": "0–1",
    "weight": "number",
    "parse_base_url": "URL",
    "parse_otlp_endpoint": "URL",
    "_limit": "number or duration",
    "_listener_type": "`model`",
    "_margin": "margin",
    "_pause": "duration or `until resumed`",
    "_secret": "secret",
}
"""How the page calls what a validator takes. Those that are made with bounds are in `_bounded`."""

PLURALS = {"id": "ids", "name": "names", "status": "statuses", "text": "texts"}

_SECONDS = [("h", 3600), ("m", 60), ("s", 1), ("ms", 0.001)]
_BYTES = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]


class Key(NamedTuple):
    name: str
    kind: str
    default: str | None
    """None: the page says it."""


def sections() -> dict[str, type[Section]]:
    found = {**vars(envoy_schema), **vars(rollout_schema), **vars(schema)}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, Section) and kind is not Section
    }


def written(page: str) -> str:
    """The page with its tables as the schema has them."""
    anchors = _anchors(page)

    def table(match: re.Match[str]) -> str:
        by_hand = {name: (default, what) for name, default, what in _ROW.findall(match[2])}
        rows = []
        for key in _keys(sections()[match[1]], anchors):
            default, what = by_hand.get(key.name, ("none", ""))
            rows.append(f"| `{key.name}` | {key.kind} | {key.default or default} | {what} |\n")
        return f"<!-- keys: {match[1]} -->\n\n{HEAD}{''.join(rows)}\n<!-- end -->\n"

    return _TABLE.sub(table, page)


def migrating(page: str) -> str:
    """The page with the table of keys that are problems here."""
    where = {"ArchConfig": "", "ArchListener": "listeners: ", "ArchListeners": "listeners: "}
    where |= {"ModelProvider": "model_providers: ", "Routing": "routing: "}
    rows = [
        f"| {where[kind.__name__]}`{key}` | {_marked(hint)} |\n"
        for kind, keys in FOREIGN.items()
        for key, hint in keys.items()
    ]
    head = "| key | what `check` says |\n|---|---|\n"
    return _FOREIGN.sub(lambda _: f"<!-- foreign -->\n\n{head}{''.join(rows)}\n<!-- end -->\n", page)


def _marked(hint: str) -> str:
    """Quoted pieces of the file as code."""
    return re.sub(r'"([^"]*[:{][^"]*)"', r"`\1`", hint)


def undescribed(page: str) -> list[str]:
    """Keys of tables that say nothing about them, and sections that no table has."""
    found = [
        f"{name}: {key}"
        for name, table in _TABLE.findall(page)
        for key, _, what in _ROW.findall(table)
        if not what
    ]
    anchors = _anchors(page)
    reached = {kind for name in anchors for kind in _reached(sections()[name], anchors)}
    return found + [name for name, kind in sections().items() if kind not in reached]


def _anchors(page: str) -> dict[str, str]:
    """Where each section's table is: under the last heading before it."""
    found = {}
    for match in _TABLE.finditer(page):
        heading = _HEADING.findall(page[: match.start()])[-1]
        found[match[1]] = re.sub(r"[^a-z0-9_ -]", "", heading.lower()).strip().replace(" ", "-")
    return found


def _tabled(kind: type[Section], anchors: dict[str, str]) -> str | None:
    """The section's own table, or that of one that adds to it."""
    return next((name for name in anchors if issubclass(sections()[name], kind)), None)


def _own(kind: type[Section], anchors: dict[str, str]) -> dict[str, FieldInfo]:
    """Its keys without those of a section that it adds to and that has a table itself."""
    bases = [base for base in kind.__mro__[1:] if base.__name__ in anchors]
    known = {key for base in bases if issubclass(base, Section) for key in base.model_fields}
    return {name: field for name, field in kind.model_fields.items() if name not in known}


def _keys(kind: type[Section], anchors: dict[str, str], prefix: str = "") -> Iterator[Key]:
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, field in _own(kind, anchors).items():
        hint, path = hints[name], prefix + name
        (nested, *more) = [*_sections_in(hint), None]
        inline = nested if nested is not None and more == [None] and not _tabled(nested, anchors) else None
        if inline is None or not isinstance(field.default, Section):
            yield Key(path, _kind(hint, anchors), _default(field, hint))
        if inline is not None:
            middle = {"list": "[].", "dict": ".NAME."}.get(_container(hint), ".")
            yield from _keys(inline, anchors, path + middle)


def _reached(kind: type[Section], anchors: dict[str, str]) -> set[type[Section]]:
    found = {kind, *(base for base in kind.__mro__ if issubclass(base, Section))}
    hints = typing.get_type_hints(kind, include_extras=True)
    for name in kind.model_fields:
        for nested in _sections_in(hints[name]):
            if not _tabled(nested, anchors):
                found |= _reached(nested, anchors)
    return found


def _sections_in(hint: Any) -> list[type[Section]]:
    if isinstance(hint, type) and issubclass(hint, Section):
        return [hint]
    return [kind for inner in get_args(hint) for kind in _sections_in(inner)]


def _container(hint: Any) -> str:
    """`list` or `dict` where the hint is one, behind what annotates it."""
    origin = get_origin(hint)
    if origin is list or origin is dict:
        return str(origin.__name__)
    inner = get_args(hint)[:1] if origin is Annotated else get_args(hint)
    return next((found for each in inner if (found := _container(each))), "")


def _kind(hint: Any, anchors: dict[str, str]) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        validator = _validator(hint)
        return _kind(inner[0], anchors) if validator is None else _bounded(validator)
    if origin is Literal:
        *first, last = [f"`{value}`" for value in inner]
        return f"{', '.join(first)} or {last}" if first else last
    if origin in (typing.Union, UnionType):
        return " or ".join(_kind(each, anchors) for each in inner if each is not NoneType)
    if origin is list:
        kind = _kind(inner[0], anchors)
        return f"list of {PLURALS.get(kind) or kind.replace('mapping', 'mappings', 1)}"
    if origin is dict:
        return f"{_kind(inner[1], anchors)} by name"
    if isinstance(hint, type) and issubclass(hint, Section):
        table = _tabled(hint, anchors)
        return f"[mapping](#{anchors[table]})" if table else "mapping"
    return {bool: "true or false"}[hint]


def _validator(hint: Any) -> Any:
    return next((each.func for each in get_args(hint)[1:] if isinstance(each, BeforeValidator)), None)


def _bounded(validator: Any) -> str:
    made_by = validator.__qualname__.partition(".")[0]
    if made_by not in ("duration", "size", "whole"):
        return KINDS[validator.__name__]
    bounds = inspect.getclosurevars(validator).nonlocals
    least, most = (
        f"{bound:,}" if isinstance(bound, int) else bound for bound in (bounds["least"], bounds["most"])
    )
    return f"{least}–{most}" if made_by == "whole" else f"{made_by}, {least}–{most}"


def _default(field: FieldInfo, hint: Any) -> str | None:
    if field.is_required():
        return "required"
    if field.default is None or isinstance(field.default, Section):
        return None
    return f"`{_written(field.default, _validator(hint))}`" if field.default != [] else "none"


def _written(value: Any, validator: Any) -> str:
    """A default as one writes it in the file."""
    of = "" if validator is None else validator.__qualname__.partition(".")[0]
    if of == "duration":
        return _in_units(value, _SECONDS)
    if of == "size":
        return _in_units(value, _BYTES)
    if of == "percent":
        return f"{value / 100:g}"
    if of == "mode":
        return f'"0{value:o}"'
    if isinstance(value, bool | list):
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=200).split("\n")[0]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_units(value: float, units: list[tuple[str, float]]) -> str:
    unit, size = next((unit, size) for unit, size in units if value >= size) if value else ("s", 1)
    return f"{round(value / size, 3):g}{unit}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
    MIGRATING.write_text(migrating(MIGRATING.read_text()))
