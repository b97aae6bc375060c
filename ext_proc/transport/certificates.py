"""PEM files of a TLS server: read together, found to fit, read again when they change.

Mounted secrets change under a running server, one file after another, so a set that does not fit (yet)
is not taken: the one in force stays until the next connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ext_proc.core.settings import ServerTls

MAX_PEM_BYTES = 1 << 20


class BadCertificate(RuntimeError):
    """Files that cannot serve. `key` is the configuration's name of the file at fault."""

    def __init__(self, key: str, problem: str, hint: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key, self.problem, self.hint = key, problem, hint


@dataclass(frozen=True, slots=True)
class KeyPair:
    """What a TLS server shows, and whom it trusts. `not_after` is when the certificate expires."""

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    not_after: datetime


def read(files: ServerTls) -> KeyPair:
    """Errors: BadCertificate when a file is missing or unreadable, or the two do not belong together."""
    chain, key = _bytes("certificate", files.certificate), _bytes("key", files.key)
    client_ca = None if files.client_ca is None else _bytes("client_ca", files.client_ca)
    own = _certificates("certificate", chain)[0]
    try:
        public, not_after = own.public_key(), own.not_valid_after_utc
    except (ValueError, UnsupportedAlgorithm):
        raise BadCertificate(
            "certificate", "has a key or a date that cannot be read", "use one with an RSA or an ECDSA key"
        ) from None
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError:
        raise BadCertificate("key", "the private key has a passphrase", "store it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadCertificate("key", "holds no private key", "name a PEM file with a private key") from None
    if private.public_key() != public:
        raise BadCertificate(
            "key", "does not belong to the certificate", "name the key that the certificate was made with"
        )
    if client_ca is not None:
        _certificates("client_ca", client_ca)
    return KeyPair(chain, key, client_ca, not_after)


class Watched:
    """The files of one server. `changed` is told of each new certificate, `failed` of each that is no use."""

    def __init__(
        self,
        files: ServerTls,
        changed: Callable[[datetime], None],
        failed: Callable[[BadCertificate], None],
    ) -> None:
        self._files = files
        self._changed = changed
        self._failed = failed
        self._seen: tuple[object, ...] = ()

    def first(self) -> KeyPair:
        """What to begin with. Errors: BadCertificate."""
        self._seen = _state(self._files)
        pair = read(self._files)
        self._changed(pair.not_after)
        return pair

    def fresh(self) -> KeyPair | None:
        """What the files hold now; None while that is what it was, or nothing that could serve."""
        state = _state(self._files)
        if state == self._seen:
            return None
        try:
            pair = read(self._files)
        except BadCertificate as error:
            self._seen = state
            self._failed(error)
            return None
        self._seen = state
        self._changed(pair.not_after)
        return pair


def _state(files: ServerTls) -> tuple[object, ...]:
    """What differs once a file was written or replaced, or a link on the way to it was moved."""
    return tuple(_state_of(name) for name in (files.certificate, files.key, files.client_ca) if name)


def _state_of(name: str) -> tuple[int, ...]:
    try:
        found = os.stat(name)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _bytes(key: str, name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_PEM_BYTES + 1)
    except FileNotFoundError:
        raise BadCertificate(key, "there is no such file", "check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise BadCertificate(key, f"cannot be read: {reason}", "check its permissions") from None
    if len(content) > MAX_PEM_BYTES:
        raise BadCertificate(key, "is larger than 1 MiB", "name a PEM file")
    return content


def _certificates(key: str, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise BadCertificate(key, "holds no certificate", "name a PEM file with a certificate") from None
