"""One target under atheris: `python -m tests.fuzz.run body_parsing [libFuzzer's options]`.

New inputs that reach new code go to `.fuzz/`; the corpus of the repository is only read.
An input that fails is written there too: add it to the corpus with what it taught.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ext_proc"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")


def main(name: str, *options: str) -> None:
    found = Path(".fuzz") / name
    found.mkdir(parents=True, exist_ok=True)
    flags = ("-max_len=4096", f"-artifact_prefix={found}/", *options)
    atheris.Setup([name, *flags, str(found), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
