"""What is kept of decisions, through the real Envoy: verdicts, an agent's loop, a record, a shadow router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from ext_proc.core.types import Message
from ext_proc.evaluation.cases import read_cases
from tests.support.mesh import CODING, CONFIGS, LIMIT_S, TRAVELLING, Mesh, eventually, running_mesh

ROUTING = "{deadline: 20s, shadow_router: {type: embedded, threshold: 1}, record: {path: '%s'}}"
LOOP = [
    {"role": "user", "content": f"{CODING}, and mail it to jane@example.org"},
    {
        "role": "assistant",
        "content": "I book a flight and a hotel for a trip.",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "book", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "trains, flights, hotels"},
]


@pytest_asyncio.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    config = tmp_path / "arch_config.yaml"
    text = (CONFIGS / "routers.yaml").read_text()
    config.write_text(f"{text}\nrouting: {ROUTING % (tmp_path / 'decisions.jsonl')}\n")
    async with running_mesh(config, tmp_path, "openai", "coder", "anthropic") as mesh:
        yield mesh


async def test_what_is_kept_of_decisions(mesh: Mesh, tmp_path: Path) -> None:
    for _ in range(2):
        assert (await mesh.ask(TRAVELLING)).policy == "travel planning"
    assert await mesh.counted("arch_ext_proc_router_questions_total", source="cache") == 1

    pin = [("x-arch-session", "s")]
    first = await mesh.send({"model": "m", "messages": LOOP[:1]}, headers=pin)
    loop = await mesh.send({"model": "m", "messages": LOOP}, headers=pin)
    assert (first.policy, first.reason) == ("code generation", "policy")
    assert (loop.policy, loop.reason, loop.model) == ("code generation", "session", first.model)

    async with asyncio.timeout(LIMIT_S):
        while await mesh.counted("arch_ext_proc_shadow_router_total", said="other") < 3:
            await asyncio.sleep(0.02)

    record = tmp_path / "decisions.jsonl"
    await eventually(lambda: record.exists() and record.read_text().count("\n") == 3, "the record of three")
    file = read_cases(record, labelled=False)
    assert file.problems == ()
    *_, last = file.cases
    assert last.decided is not None
    assert last.decided.policy == "code generation"
    assert last.messages == (Message("user", f"{CODING}, and mail it to <email>"),)
