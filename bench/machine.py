"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from demo.processes import command


def describe() -> dict[str, Any]:
    """Processor, memory, versions, and how busy the machine was before."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    total_kb = int(Path("/proc/meminfo").read_text().split()[1])
    envoy = subprocess.run([command("envoy"), "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(total_kb / 1e6),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "envoy": next((word for word in envoy.split("/") if word.count(".") == 2 and word[0].isdigit()), "?"),
        **{name: version(name) for name in ("grpcio", "protobuf", "uvloop", "onnxruntime")},
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }
