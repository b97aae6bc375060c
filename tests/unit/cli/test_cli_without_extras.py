"""What a file asks for of a package that was installed without the extra for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILE = """\
model_providers: [{model: openai/a, default: true}]
affinity: {salt: 0123456789abcdef}
telemetry: {otlp: {endpoint: "http://127.0.0.1:4317"}}
"""
HIDES = """
import sys

class Hides:
    def find_spec(self, name, path=None, target=None):
        if name in NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hides())
"""
"""Another package, xds-protos, brings `opentelemetry.proto` in any case."""


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (
            ("opentelemetry.exporter", "opentelemetry.sdk"),
            "\"otlp\" needs packages that are not installed — pip install 'arch-ext-proc[otel]'",
        ),
        (
            ("opentelemetry.proto.common.v1",),
            '"otlp" needs files of opentelemetry-proto that another package has replaced'
            " — pip install --force-reinstall --no-deps opentelemetry-proto",
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "serve"])
def test_traces_say_which_packages_they_need(
    tmp_path: Path, command: str, names: tuple[str, ...], problem: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDES.replace("NAMES", repr(names)))
    file = tmp_path / "f.yaml"
    file.write_text(FILE)
    done = subprocess.run(
        [sys.executable, "-m", "ext_proc", command, str(file)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert f"{file}:3:13: {problem}" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
