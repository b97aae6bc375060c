"""`arch-ext-proc explain` with a router that takes longer than requests wait for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ext_proc.cli.main import main
from tests.support.router_endpoint import RouterEndpoint, slow

FILE = """\
model_providers:
  - {{model: openai/a, default: true}}
  - {{model: openai/b}}
  - {{model: mistral/d}}
affinity: {{salt: 0123456789abcdef}}
routing_preferences:
  - {{name: code, description: write a function, models: [openai/b]}}
routing:
  router: {{type: openai, model: arch-router, base_url: "{url}"}}
  on_failure: mistral/d
  deadline: {deadline}
envoy: {{message_timeout: 30s}}
"""
QUESTION = "write a function that reverses a list"


async def explained(
    capsys: pytest.CaptureFixture[str], folder: Path, deadline: str
) -> tuple[dict[str, Any], list[str]]:
    """What a program reads, and the lines that a person does."""
    endpoint = RouterEndpoint()
    endpoint.answer = slow
    await endpoint.up()
    file = folder / "f.yaml"
    file.write_text(FILE.format(url=endpoint.url, deadline=deadline))
    try:
        assert await asyncio.to_thread(main, ["explain", str(file), "-m", QUESTION, "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert await asyncio.to_thread(main, ["explain", str(file), "-m", QUESTION]) == 0
    finally:
        await endpoint.down()
    return found, capsys.readouterr().out.splitlines()


async def test_a_router_that_is_too_late_in_service_is_waited_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found, lines = await explained(capsys, tmp_path, "10ms")
    assert (found["reason"], found["policy"]) == ("policy", "code")
    assert found["scores"] == {"code": 1}
    assert found["late"] == {"deadline_ms": 10, "target": "mistral/d"}
    assert lines[0] == "policy   code  (policy)"
    assert lines[-2] == (
        "late     over routing.deadline (10 ms): in service it would have gone to mistral/d (router_timeout)"
    )


async def test_a_router_that_is_in_time_is_not_called_late(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found, lines = await explained(capsys, tmp_path, "20s")
    assert (found["policy"], found["late"]) == ("code", None)
    assert not any(line.startswith("late") for line in lines)
