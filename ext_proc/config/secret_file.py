"""Secrets in files of their own, as Kubernetes mounts them: `access_key: {file: /run/secrets/key}`."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path as FilePath
from typing import Annotated

from pydantic import BeforeValidator

from ext_proc.config.document import MAX_FILE_BYTES, Mark, Report
from ext_proc.config.values import text_of, wrong

MAX_SECRET_BYTES = 64 << 10

_WRITE = "write {file: /run/secrets/name}"


@dataclass(frozen=True, slots=True)
class SecretFile:
    """Where a secret is; variables in it are not yet resolved."""

    path: str


def _secret(value: object) -> str | SecretFile:
    if not isinstance(value, dict):
        return text_of(value)
    if set(value) != {"file"}:
        raise wrong('is a mapping with something other than "file"', _WRITE)
    if not isinstance(path := value["file"], str):
        raise wrong('has a "file" that is not text', _WRITE)
    return SecretFile(path)


SecretText = Annotated[str | SecretFile, BeforeValidator(_secret)]
"""A secret as it is written: one variable or one literal, or the file that holds it."""


def read_file(path: FilePath, mark: Mark, report: Report) -> str | None:
    """The secret in a file, without white space around it. None, and a problem, without one.

    Errors: FileNotFoundError.
    """
    if not path.is_absolute():
        report.add(mark, "this path of a file is not absolute", _WRITE)
        return None
    raw = b""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
        report.read[path] = _digest(raw)
        text = raw.decode().strip()
    except UnicodeDecodeError:
        report.add(mark, f"{path} is not UTF-8 text", "it should hold the secret and nothing else")
        return None
    except FileNotFoundError:
        report.read[path] = None
        raise
    except (OSError, ValueError) as error:
        report.read[path] = None
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        report.add(mark, f"{path} cannot be read: {reason}", "check that it is mounted and may be read")
        return None
    if not text or len(raw) > MAX_SECRET_BYTES:
        size = "larger than 64 KiB" if text else "empty"
        report.add(mark, f"{path} is {size}", "it should hold the secret and nothing else")
        return None
    return text


def fingerprint(path: FilePath) -> bytes | None:
    """What tells one content of a file from another; None for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return _digest(file.read(MAX_FILE_BYTES + 1))
    except (OSError, ValueError):
        return None


def _digest(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=16).digest()
