"""A file to the configuration in force, or to everything that is wrong with it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

from ext_proc.config.document import Mark, Path, Report, parse, read_text
from ext_proc.config.draft import read_draft
from ext_proc.config.files import examine
from ext_proc.config.masking import masked
from ext_proc.config.routes import policy_places
from ext_proc.config.secret_file import fingerprint
from ext_proc.config.snapshot import build
from ext_proc.core.errors import ConfigError, Problem
from ext_proc.core.settings import Configuration

_SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Loaded:
    """A usable configuration and what its file should better say, in file order.

    `places` has the place of every policy's parts: of `(name, "description")`, `(name, "examples", 0)`.
    `read` has the files it came from, each with a digest; `shown` is what the file says, without its secrets.
    `absent` has those of the warnings that are of secrets which serving needs.
    """

    configuration: Configuration
    warnings: tuple[Problem, ...]
    places: Mapping[Path, Mark] = field(default_factory=dict, repr=False)
    read: Mapping[FilePath, bytes | None] = field(default_factory=dict, repr=False)
    shown: Mapping[str, Any] = field(default_factory=dict, repr=False)
    absent: tuple[Problem, ...] = ()


def random_salt() -> bytes:
    """A salt for a process whose file has none."""
    return secrets.token_bytes(_SALT_BYTES)


def load(
    path: FilePath,
    environ: Mapping[str, str],
    random_salt: Callable[[], bytes],
    *,
    with_files: bool = False,
    needs_secrets: bool = True,
) -> Loaded:
    """Read, check and resolve a file; `with_files` also what it names on the machine where it is served.

    Without `needs_secrets`, a secret that is not on this machine is a warning. What comes of that tells
    everything of the file but cannot serve: something else stands for such a secret.

    `random_salt` is asked only when the file has no salt. It should give one process the same salt at
    every reload: a new one moves sessions.

    Errors: ConfigError, with all problems and warnings in file order.
    """
    # Before it is read: one that changes in between is then seen to have changed.
    read = {path: fingerprint(path)}
    try:
        text = read_text(path)
        loaded = load_text(
            text, str(path), environ, random_salt, with_files=with_files, needs_secrets=needs_secrets
        )
    except ConfigError as error:
        raise ConfigError(error.problems, {**read, **error.read}) from None
    return replace(loaded, read={**read, **loaded.read})


def load_text(
    text: str,
    file: str,
    environ: Mapping[str, str],
    random_salt: Callable[[], bytes],
    *,
    with_files: bool = False,
    needs_secrets: bool = True,
) -> Loaded:
    """As `load`, of a text that is at hand. `file` is the name that problems show."""
    document = parse(text, file)
    report = Report(file, needs_secrets=needs_secrets)
    shown = masked(document.data)
    draft = read_draft(document, environ, report)
    configuration = build(draft, environ, random_salt, report)
    if with_files and configuration is not None:
        examine(configuration, document, report)
    problems = report.sorted()
    if report.has_errors or configuration is None:
        raise ConfigError(problems, report.read)
    return Loaded(configuration, problems, policy_places(draft), report.read, shown, report.absent)


def check(path: FilePath, environ: Mapping[str, str]) -> tuple[Problem, ...]:
    """Every problem and warning of a file, in file order; empty when there is nothing to say."""
    try:
        return load(path, environ, lambda: b"\0", with_files=True, needs_secrets=False).warnings
    except ConfigError as error:
        return error.problems
