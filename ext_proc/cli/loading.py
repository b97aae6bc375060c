"""A configuration for the commands that serve nothing: secrets may be elsewhere, as they are in CI."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ext_proc.config import load


def load_to_read(file: Path) -> load.Loaded:
    """Load a file, and tell on standard error which secrets are not on this machine.

    Errors: ConfigError.
    """
    loaded = load.load(file, os.environ, load.random_salt, needs_secrets=False)
    for problem in loaded.absent:
        print(problem, file=sys.stderr)
    return loaded
