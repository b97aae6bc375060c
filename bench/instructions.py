"""Instructions per request, counted by valgrind's cachegrind: a figure that no other load changes.

python -m bench.instructions
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from bench.in_memory import KINDS

_REQUESTS = {"pinned, 1 MiB": 100}
_MOST = 500
_COUNT = re.compile(r"I\s+refs:\s+([\d,]+)")


def counted() -> dict[str, int]:
    """Instructions that the server's own code takes per request, by kind; nothing without valgrind.

    Errors: CalledProcessError.
    """
    if shutil.which("valgrind") is None:
        return {}
    # What starting and warming up take is counted by itself and taken off. One job for each core.
    jobs = [(kind, 0) for kind in KINDS] + [(kind, _REQUESTS.get(kind, _MOST)) for kind in KINDS]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        totals = dict(zip(jobs, pool.map(lambda job: _count(*job), jobs), strict=True))
    return {
        kind: (totals[kind, requests] - totals[kind, 0]) // requests for kind, requests in jobs if requests
    }


def _count(kind: str, requests: int) -> int:
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    command += [sys.executable, "-m", "bench.in_memory", kind, str(requests)]
    environ = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    found = _COUNT.search(ran.stderr)
    if found is None:
        raise RuntimeError(f"valgrind counted nothing: {ran.stderr[-500:]}")
    return int(found[1].replace(",", ""))


if __name__ == "__main__":
    for name, count in counted().items():
        print(f"{name}: {count:,} instructions per request")
