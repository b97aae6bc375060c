"""LiteLLM's proxy, as a Python team would run it without Envoy: in an environment of its own, since what it
depends on conflicts with what this project does. `make bench` makes it; without one it is left out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from bench.bodies import reason
from bench.mesh import Side
from demo.processes import Child, free_port

FOLDER = Path(__file__).parents[1] / ".bench/litellm/bin"
EXPECTED = reason("")[:0]
"""It names no reason; any 200 counts."""


def is_installed() -> bool:
    return (FOLDER / "litellm").exists()


def version() -> str:
    """Of what is installed."""
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    return subprocess.run(
        [FOLDER / "python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


async def started(folder: Path, upstream_port: int) -> Side:
    """One worker, its log off, every model at the upstream. Whoever calls stops it."""
    port = free_port()
    config = {
        "model_list": [
            {
                "model_name": "*",
                "litellm_params": {
                    "model": "openai/bench",
                    "api_base": f"http://127.0.0.1:{upstream_port}/v1",
                    "api_key": "key",
                },
            }
        ],
        "litellm_settings": {"telemetry": False, "set_verbose": False, "num_retries": 0},
    }
    file = folder / "litellm.yaml"
    file.write_text(yaml.safe_dump(config))
    arguments = [str(FOLDER / "litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--num_workers", "1"]
    environ = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "PYTHONPATH": "",
        # Without keys to look up it is faster.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    child = Child(arguments, f"http://127.0.0.1:{port}/health/readiness", folder / "litellm.log", environ)
    await child.start()
    return Side(port, child)
