"""Rollout states and events as JSON and back, and what else the stores and the other replicas are told.

The shape is that of the dataclasses: an object per dataclass with its fields' names, enums by their
value, sets as sorted lists. A stored state says its `schema`. Reading checks every value against the
field's type, since a store may hold anything; a field that is missing takes its default, one that is
unknown is an error: it would be lost on the next write.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ext_proc.core.rollout_types import Counts, Event, RolloutState, WindowCounts
from ext_proc.core.sequential import GOOD, WORSE
from ext_proc.core.types import WHOLE_PER_10K
from ext_proc.core.window import GROUPS

SCHEMA = 1
"""Version of the stored state's shape. A reader refuses another one rather than guess."""

T = TypeVar("T")


class StateError(ValueError):
    """A stored value that cannot be read. The text names the place in it and what was expected there."""


def dump_state(state: RolloutState) -> str:
    return json.dumps({"schema": SCHEMA, **as_plain(state)}, separators=(",", ":"))


def load_state(text: str | bytes) -> RolloutState:
    """Read what `dump_state` wrote. Errors: StateError."""
    state = _load(RolloutState, text, "state")
    if state.step < 0 or not 0 <= state.weight_per_10k <= WHOLE_PER_10K:
        raise StateError(f"state: no rollout is at step {state.step} with weight {state.weight_per_10k}")
    for kind, gathered in state.evidence.metrics.items():
        where = f"state.evidence.metrics.{kind}"
        _check_counts(gathered.counts, where)
        _check_length(gathered.worse, len(WORSE), f"{where}.worse")
        _check_length(gathered.good, len(GOOD), f"{where}.good")
    return state


def dump_event(event: Event) -> str:
    return json.dumps({"schema": SCHEMA, **as_plain(event)}, separators=(",", ":"))


def check_window(window: WindowCounts, where: str) -> None:
    """What a window's types do not say. Errors: StateError."""
    for kind, counts in window.counts.items():
        _check_counts(counts, f"{where}.counts.{kind}")


def as_plain(value: Any) -> Any:
    """A value of the rollout's types as dicts, lists, strings and numbers."""
    if is_dataclass(value):
        return {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(as_plain(item) for item in value)
    if isinstance(value, tuple | list):
        return [as_plain(item) for item in value]
    return value


def from_plain(kind: type[T], plain: Any, where: str) -> T:
    """The value of a dataclass that `as_plain` gave this. Errors: StateError."""
    if not isinstance(plain, dict):
        raise StateError(f"{where}: expected an object, found {type(plain).__name__}")
    of: Any = kind  # mypy takes a TypeVar for unhashable
    hints = _hints(of)
    if unknown := sorted(set(plain) - set(hints)):
        raise StateError(f"{where}: unknown field {unknown[0]!r}; a newer version may have written it")
    found = {name: _read(hints[name], item, f"{where}.{name}") for name, item in plain.items()}
    for field in fields(of):
        if field.name not in found and field.default is MISSING and field.default_factory is MISSING:
            raise StateError(f"{where}: field {field.name!r} is missing")
    return kind(**found)


def _check_counts(counts: Counts, where: str) -> None:
    for column in fields(counts):
        values = getattr(counts, column.name)
        _check_length(values, GROUPS, f"{where}.{column.name}")
        if any(value < 0 for value in values):
            raise StateError(f"{where}.{column.name}: a count is negative")


def _check_length(values: tuple[float, ...], length: int, where: str) -> None:
    if len(values) not in (0, length):
        raise StateError(f"{where}: expected {length} numbers or none, found {len(values)}")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _load(kind: type[T], text: str | bytes, where: str) -> T:
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{where}: not JSON: {error}") from None
    if not isinstance(plain, dict):
        raise StateError(f"{where}: expected an object, found {type(plain).__name__}")
    schema = plain.pop("schema", None)
    if schema != SCHEMA:
        raise StateError(f"{where}: schema {schema!r} is not {SCHEMA}, the one this version reads")
    return from_plain(kind, plain, where)


def _read(hint: Any, plain: Any, where: str) -> Any:
    """`plain` as a value of the annotated type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (UnionType,):
        if plain is None and NoneType in args:
            return None
        (inner,) = (arg for arg in args if arg is not NoneType)
        return _read(inner, plain, where)
    if origin is tuple or origin is frozenset:
        if not isinstance(plain, list):
            raise StateError(f"{where}: expected a list, found {type(plain).__name__}")
        return origin(_read(args[0], item, f"{where}[{index}]") for index, item in enumerate(plain))
    if origin is Mapping:
        if not isinstance(plain, dict):
            raise StateError(f"{where}: expected an object, found {type(plain).__name__}")
        return {
            _key(args[0], key, where): _read(args[1], item, f"{where}.{key}") for key, item in plain.items()
        }
    if isinstance(hint, type) and is_dataclass(hint):
        return from_plain(hint, plain, where)
    return _scalar(hint, plain, where)


def _key(hint: Any, key: str, where: str) -> Any:
    if hint is not int:
        return _scalar(hint, key, where)
    try:
        return int(key)
    except ValueError:
        raise StateError(f"{where}: {key!r} is no whole number") from None


def _scalar(hint: Any, plain: Any, where: str) -> Any:
    if hint is float and isinstance(plain, int | float) and not isinstance(plain, bool):
        if not abs(plain) <= sys.float_info.max:  # NaN too
            raise StateError(f"{where}: {plain} is not finite")
        return float(plain)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        try:
            return hint(plain)
        except ValueError:
            raise StateError(f"{where}: {plain!r} is none of {', '.join(hint)}") from None
    # type(), not isinstance: true is no count.
    if type(plain) is not hint:
        raise StateError(f"{where}: expected {hint.__name__}, found {type(plain).__name__}")
    return plain
