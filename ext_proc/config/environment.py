"""Environment variables in the file: `$VAR`, `${VAR}`, `${VAR:-default}`; `$$` is a dollar sign. And secrets.

Addresses may mix text and variables, and so may the path of a secret's file. A secret is one variable or one
literal, so that half a secret is never taken for a variable's name and shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from ext_proc.config.document import Document, Path, Report
from ext_proc.config.secret_file import SecretFile, read_file

_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(:-([^}$]*))?\})", re.ASCII)
ABSENT = "a-secret-that-is-not-on-this-machine"
"""What stands for one where nothing is served, so that the rest is as it will be with the real one."""

_WRITE = "write $VAR, ${VAR} or ${VAR:-default}; a dollar sign is $$"

_EXPANDED: tuple[tuple[str, ...], ...] = (
    ("model_providers", "*", "base_url"),
    ("llm_providers", "*", "base_url"),
    ("routing", "router", "base_url"),
    ("routing", "router", "model"),
    ("routing", "shadow_router", "base_url"),
    ("routing", "shadow_router", "model"),
    ("listeners", "*", "port"),
    ("server", "port"),
    ("server", "socket"),
    ("server", "tls", "certificate"),
    ("server", "tls", "key"),
    ("server", "tls", "client_ca"),
    ("envoy", "ext_proc_tls", "ca"),
    ("envoy", "ext_proc_tls", "certificate"),
    ("envoy", "ext_proc_tls", "key"),
    ("server", "workers"),
    ("envoy", "ext_proc_tls", "sds"),
    ("admin", "port"),
    ("envoy", "listener", "port"),
    ("envoy", "admin", "port"),
)
_NUMBERS = ("port", "workers")


@dataclass(frozen=True, slots=True)
class Value:
    """A secret's text, and the variable it was read from, if any. `plain`: the variable has no default.

    `is_absent`: the secret is not on this machine, and `text` is `ABSENT`.
    """

    text: str
    variable: str | None = None
    plain: bool = False
    is_absent: bool = False


def expand_addresses(document: Document, environ: Mapping[str, str], report: Report) -> frozenset[Path]:
    """Replace the variables in URLs and ports, in place; gives the paths of those that cannot be."""
    failed: set[Path] = set()
    for pattern in _EXPANDED:
        key = pattern[-1]
        for holder, path in _places(document.data, pattern):
            text = holder[key]
            if not isinstance(text, str) or "$" not in text:
                continue
            result = _expand(text, environ, document, path, report)
            if result is None:
                failed.add(path)
                del holder[key]
            elif key in _NUMBERS and re.fullmatch(r"\d{1,5}", result, re.ASCII):
                holder[key] = int(result)
            else:
                holder[key] = result
    return frozenset(failed)


def read_secret(
    text: str | SecretFile, environ: Mapping[str, str], document: Document, path: Path, report: Report
) -> Value | None:
    """Resolve a secret.

    None, and a problem, when its file holds none, or it is no clear reference. Where its variable is not set
    or its file not there, that is the problem, unless the report needs no secrets: then it is a warning.
    """
    if isinstance(text, SecretFile):
        return _read_secret_file(text.path, environ, document, (*path, "file"), report)
    match = _VARIABLE.fullmatch(text)
    if match is not None and match[1] is None:
        name, is_plain = match[2] or match[3], match[4] is None
        if is_plain and name not in environ:
            _report_unset_secret(name, document, path, report)
            return None if report.needs_secrets else Value(ABSENT, name, plain=True, is_absent=True)
        value = _expand(text, environ, document, path, report)
        return None if value is None else Value(value, name, plain=is_plain)
    if "$" in text.replace("$$", ""):
        report.add(
            document.mark(path), f'"{path[-1]}" has a dollar sign that is not a variable alone', _WRITE
        )
        return None
    return Value(text.replace("$$", "$"))


def _read_secret_file(
    text: str, environ: Mapping[str, str], document: Document, path: Path, report: Report
) -> Value | None:
    found = _VARIABLE.finditer(text)
    unset = [
        name for match in found if (name := match[2] or match[3]) and not match[4] and name not in environ
    ]
    for name in unset:
        _report_unset_secret(name, document, path, report)
    if unset:
        return None if report.needs_secrets else Value(ABSENT, is_absent=True)
    file = _expand(text, environ, document, path, report)
    if file is None:
        return None
    mark = document.mark(path)
    try:
        content = read_file(FilePath(file), mark, report)
    except FileNotFoundError:
        text = f"{file} cannot be read: No such file or directory"
        report.add_absent(mark, text, "check that it is mounted where the server runs")
        return None if report.needs_secrets else Value(ABSENT, is_absent=True)
    return None if content is None else Value(content)


def _report_unset_secret(name: str, document: Document, path: Path, report: Report) -> None:
    text = f"the environment variable {name} is not set"
    report.add_absent(document.mark(path), text, "set it where the server runs")


def _expand(
    text: str, environ: Mapping[str, str], document: Document, path: Path, report: Report
) -> str | None:
    if "$" in _VARIABLE.sub("", text):
        report.add(document.mark(path), f'"{path[-1]}" has a dollar sign that begins no variable', _WRITE)
        return None
    unset = False

    def replace(match: re.Match[str]) -> str:
        nonlocal unset
        if match[1]:
            return "$"
        name = match[2] or match[3]
        if match[4] is not None:
            return environ.get(name) or match[5]
        if name not in environ:
            unset = True
            report.add(
                document.mark(path),
                f"the environment variable {name} is not set",
                f"set it, or write ${{{name}:-default}}",
            )
        return environ.get(name, "")

    result = _VARIABLE.sub(replace, text)
    return None if unset else result


def _places(data: Any, pattern: tuple[str, ...], path: Path = ()) -> Iterator[tuple[dict[str, Any], Path]]:
    """The mappings that hold the last key of a pattern, `*` standing for any key or index."""
    step, *rest = pattern
    if not rest:
        if isinstance(data, dict) and step in data:
            yield data, (*path, step)
        return
    keys: list[Any] = []
    if step == "*":
        keys = (
            list(range(len(data))) if isinstance(data, list) else list(data) if isinstance(data, dict) else []
        )
    elif isinstance(data, dict) and step in data:
        keys = [step]
    for key in keys:
        yield from _places(data[key], tuple(rest), (*path, key))
