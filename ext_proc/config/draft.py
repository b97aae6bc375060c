"""Data to schema, keeping what is good of a file that has bad parts.

A part that does not fit is reported, taken out, and the rest is tried again, so that one run can find
everything: what is wrong in itself here, and what is wrong between the good parts later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ext_proc.config.document import Document, Path, Report, shown
from ext_proc.config.environment import expand_addresses
from ext_proc.config.foreign import FOREIGN
from ext_proc.config.rollout_schema import Rollout, RolloutCheck, RolloutLimit, RolloutMetric, RolloutWebhook
from ext_proc.config.schema import (
    Alias,
    ArchConfig,
    InlinePreference,
    Judge,
    ModelProvider,
    Preference,
    ProviderPrice,
    Samples,
    ShadowTarget,
    WeightedTarget,
)
from ext_proc.config.section import Section

_NOUNS: Mapping[type[Section], str] = {
    Alias: "alias",
    InlinePreference: "policy",
    Judge: "judge",
    ModelProvider: "provider",
    Preference: "policy",
    ProviderPrice: "price",
    Samples: "mapping",
    Rollout: "rollout",
    RolloutCheck: "check",
    RolloutLimit: "limit",
    RolloutMetric: "metric",
    RolloutWebhook: "webhook",
    ShadowTarget: "shadow",
    WeightedTarget: "target",
}
_EXAMPLES = {
    "input_per_million": "input_per_million: 2.5",
    "output_per_million": "output_per_million: 10",
    "path": "path: samples.jsonl",
    "canary": "canary: openai/gpt-4o-mini",
    "description": "description: reviewing existing code",
    "metric": "metric: error_rate",
    "model": "model: openai/gpt-4o-mini",
    "name": "name: code review",
    "percent": "percent: 10",
    "query": "query: sum(rate(my_errors_total[5m]))",
    "target": "target: openai/gpt-4o-mini",
    "url": "url: https://hooks.example.com/gate",
    "weight": "weight: 10",
}
_TYPES = {
    "bool_type": ("must be true or false", "write it without quotes"),
    "dict_type": ("must be a mapping", 'write "key: value" lines under it'),
    "list_type": ("must be a list", 'begin each entry with "- "'),
    "model_type": ("must be a mapping", 'write "key: value" lines under it'),
    "too_long": ("has too many entries", "at most {max_length} are possible"),
    "too_short": ("is empty", "write at least one entry"),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A file as far as it fits the schema.

    `lost` holds the paths of the parts that did not fit, `lost_names` what lost providers are called:
    a reference to one of these is no further problem. `lost` has also the keys that unknown ones stand for.
    """

    document: Document
    config: ArchConfig
    lost: frozenset[Path]
    lost_names: frozenset[str]

    def is_lost(self, path: Path) -> bool:
        """Whether the value at a path, or something around it, was taken out."""
        return any(path[:length] in self.lost for length in range(1, len(path) + 1))

    def may_be_lost(self, reference: str) -> bool:
        """Whether a reference may be to a provider that was taken out, perhaps for its prefix."""
        prefix, _, bare = reference.partition("/")
        return not self.lost_names.isdisjoint({reference, bare or reference, f"{prefix}/*"})

    def was_written(self, path: Path) -> bool:
        return path in self.document.values


def read_draft(document: Document, environ: Mapping[str, str], report: Report) -> Draft:
    """Expand the variables in addresses and fit the data to the schema, reporting every misfit.

    Uses the document's data up: parts that do not fit are taken out of it.
    """
    names = _provider_names(document.data)
    lost = set(expand_addresses(document, environ, report))
    for path in _empty_entries(document.data):
        lost.add(path)
        report.add(document.mark(path), "this entry is empty", 'write it out, or remove its "-"')
    while True:
        # The exception ends here: a traceback that reached it from a later one would show values.
        errors: list[ErrorDetails] = []
        try:
            config = ArchConfig.model_validate(document.data)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
        if not errors:
            keys = ("name", "model")
            lost_names = {
                name for path, name in names if path in lost or any((*path, key) in lost for key in keys)
            }
            return Draft(document, config, frozenset(lost), frozenset(lost_names))
        misfits = [(_path_in(document.data, details["loc"]), details) for details in errors]
        unknown = [path for path, details in misfits if details["type"] == "extra_forbidden"]
        meant = {found for path in unknown if (found := _report_unknown_key(document, path, report))}
        for path, details in misfits:
            _report_misfit(document, path, details, lost | meant, report)
        for path, details in misfits:
            is_missing = details["type"] == "missing" and (*path, str(details["loc"][-1])) not in lost
            gone = (*path, str(details["loc"][-1])) if is_missing else path
            _take_out(document.data, gone, _placeholder(gone, len(lost)))
            lost.add(gone)
        lost |= meant


def _provider_names(data: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Every text that may be meant as a provider's name, a mistyped key's too, with the provider's path."""
    found: list[tuple[Path, str]] = []
    for section in ("model_providers", "llm_providers"):
        entries = data.get(section)
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            values = [entry]
            if isinstance(entry, dict):
                values = [value for key, value in entry.items() if key != "access_key"]
            texts = [value for value in values if isinstance(value, str)]
            texts += [text.partition("/")[2] for text in texts]
            found += [((section, index), text) for text in texts if text]
    return found


def _path_in(data: Any, location: tuple[int | str, ...]) -> Path:
    """The part of pydantic's location that exists in the data: not the tags it adds for alternatives."""
    path: Path = ()
    for step in location:
        if isinstance(data, dict) and step in data:
            data = data[str(step)]
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            continue
        path = (*path, step)
    return path


def _placeholder(path: Path, number: int) -> object:
    """What stands in for a required value that did not fit, so that what is around it is still checked."""
    if not isinstance(path[-1], str):
        return None
    section = _section_at(path[:-1])
    if issubclass(section, InlinePreference):
        return {"name": f"(lost {number})", "description": "(lost)"}.get(path[-1])
    stand_ins: dict[tuple[type[Section], str], object] = {
        (ModelProvider, "model"): f"lost/{number}",
        (WeightedTarget, "weight"): 1,
        (ShadowTarget, "percent"): 0,
    }
    return stand_ins.get((section, path[-1]))


def _take_out(data: Any, path: Path, placeholder: object) -> None:
    """Remove or replace a value. An entry of a list becomes None, so that the others keep their places."""
    for step in path[:-1]:
        if data is None or (isinstance(data, dict) and step not in data):
            return
        data = data[step]
    if isinstance(data, list):
        data[int(path[-1])] = None
    elif isinstance(data, dict) and placeholder is not None:
        data[str(path[-1])] = placeholder
    elif isinstance(data, dict):
        data.pop(str(path[-1]), None)


def _report_misfit(
    document: Document, path: Path, details: ErrorDetails, lost: set[Path], report: Report
) -> None:
    kind, location = details["type"], details["loc"]
    context = details.get("ctx", {})
    if kind == "extra_forbidden":
        return
    if kind == "missing":
        name = str(location[-1])
        if (*path, name) not in lost:
            noun = _NOUNS.get(_section_at(path), "mapping")
            text = f'this {noun} has no "{name}"'
            report.add(document.mark(path), text, f'write e.g. "{_EXAMPLES.get(name, name)}"')
        return
    label = shown(next((step for step in reversed(path) if isinstance(step, str)), "file"))
    if kind == "arch":
        text, hint = context["text"], context["hint"]
    elif kind == "literal_error":
        text, hint = (
            "has an unknown value",
            _choice_hint(_at(document.data, path), context["expected"], report),
        )
    else:
        text, hint = _TYPES.get(kind, ("does not fit", "see docs/configuration.md"))
        hint = hint.format(**context)
    report.add(document.mark(path, of_key=location[-1] == "[key]"), f'"{label}" {text}', hint)


def _report_unknown_key(document: Document, path: Path, report: Report) -> Path | None:
    """Report a key that no section has; gives the path of the unwritten one that it stands for, if any."""
    section, key = _section_at(path[:-1]), str(path[-1])
    known = list(section.model_fields)
    foreign = FOREIGN.get(section, {}).get(key)
    mark = document.mark(path, of_key=True)
    if foreign is not None:
        report.add(mark, f'"{key}" is a key of archgw or Plano that this server does not have', foreign)
        return None
    close = report.closest(key, known)
    hint = f"known here: {', '.join(known)}" if close is None else f'did you mean "{close}"?'
    report.add(mark, f'unknown key "{shown(key)}"', hint)
    meant = None if close is None else (*path[:-1], close)
    return None if meant in document.values else meant


def _choice_hint(value: object, expected: str, report: Report) -> str:
    options = re.findall(r"'([^']*)'", expected)
    close = report.did_you_mean(value, options) if isinstance(value, str) else None
    return close or f"write {' or '.join(options)}"


def _section_at(path: Path) -> type[Section]:
    """The model that describes the mapping at a path. Keys that people choose (aliases) lead nowhere new."""
    section: type[Section] = ArchConfig
    for index, step in enumerate(path):
        field = section.model_fields.get(step) if isinstance(step, str) else None
        kinds = _sections_in(field.annotation) if field is not None else []
        if kinds:
            is_list = any(isinstance(after, int) for after in path[index + 1 : index + 2])
            section = kinds[-1] if is_list else kinds[0]
    return section


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _sections_in(argument)]


def _at(data: Any, path: Path) -> object:
    for step in path:
        data = data[step]
    return data


def _empty_entries(data: Any, path: Path = ()) -> list[Path]:
    found: list[Path] = []
    items: list[tuple[Any, Any]] = []
    if isinstance(data, dict):
        items = list(data.items())
    elif isinstance(data, list):
        items = list(enumerate(data))
    for step, value in items:
        if value is None and isinstance(data, list):
            found.append((*path, step))
        else:
            found += _empty_entries(value, (*path, step))
    return found
