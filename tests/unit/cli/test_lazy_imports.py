"""Commands that need no library do not wait for one."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("grpc", "torch", "onnxruntime", "aiohttp", "transformers", "envoy_data_plane")


def test_the_version_imports_no_library() -> None:
    code = f"""
import sys
from ext_proc.cli.main import main
try:
    main(["--version"])
finally:
    print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
