"""Where a configuration comes from, again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ext_proc.config.load import Loaded, load
from ext_proc.config.secret_file import fingerprint


class Source:
    """A file, and what it is read with.

    `random_salt` is asked once: a file without a salt keeps the same one at every reload, so that no
    session moves.
    """

    def __init__(self, file: Path, environ: Mapping[str, str], random_salt: Callable[[], bytes]) -> None:
        self.file = file
        self._environ = environ
        salt = random_salt()
        self._salt = lambda: salt

    def load(self) -> Loaded:
        """Errors: ConfigError."""
        return load(self.file, self._environ, self._salt, with_files=True)


def has_changed(read: Mapping[Path, bytes | None]) -> bool:
    """Whether any of the files has another content now than when it was read."""
    return any(fingerprint(file) != digest for file, digest in read.items())
