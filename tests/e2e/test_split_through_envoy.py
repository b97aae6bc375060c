"""A canary through Envoy: its share, who is in it, and who stays when it grows.

Sessions are the independent unit here, not requests. All sessions say the same words, so the router's
answer comes out of its memory and 10,000 of them take well under a minute.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from math import sqrt
from pathlib import Path

import pytest

from tests.support.mesh import CONFIGS, Mesh, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSIONS = 10_000
RETURNING = 1_000
CONNECTIONS = 16
STANDARD_ERRORS = 3.3
"""One run in a thousand would fail by chance, were the salt not fixed."""

PROVIDERS = ("openai", "coder", "next")


async def models_of(mesh: Mesh, sessions: Iterable[str]) -> dict[str, str]:
    """Each session's model, as its provider saw it named in the body."""
    waiting = iter(sessions)
    models: dict[str, str] = {}

    async def work() -> None:
        for session in waiting:
            reply = await mesh.ask("hi code", session=session)
            assert (reply.status, reply.reason) == (200, "policy")
            assert reply.model is not None
            models[session] = reply.model

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())
    return models


def on_canary(models: Mapping[str, str]) -> set[str]:
    return {session for session, model in models.items() if model == "vllm/next"}


async def test_a_canary_gets_its_share_keeps_its_sessions_and_loses_none_when_it_grows(
    tmp_path: Path,
) -> None:
    file = CONFIGS / "split.yaml"
    grown = tmp_path / "grown.yaml"
    grown.write_text(file.read_text().replace("weight: 90", "weight: 70").replace("weight: 10", "weight: 30"))
    async with AsyncExitStack() as cleanup:
        folders = [tmp_path / "before", tmp_path / "after"]
        for folder in folders:
            folder.mkdir()
        before, after = [
            await cleanup.enter_async_context(
                running_mesh(config, folder, *PROVIDERS, connections=CONNECTIONS)
            )
            for config, folder in zip((file, grown), folders, strict=True)
        ]

        sessions = [f"session-{number}" for number in range(SESSIONS)]
        at_first = await models_of(before, sessions)
        canary = on_canary(at_first)
        assert abs(len(canary) / SESSIONS - 0.10) <= STANDARD_ERRORS * sqrt(0.10 * 0.90 / SESSIONS) < 0.01

        arrived = Counter(seen.model for provider in before.providers.values() for seen in provider.seen)
        assert arrived == {"next": len(canary), "coder": SESSIONS - len(canary)}

        returning = sessions[: RETURNING // 2] + sorted(canary)[: RETURNING // 2]
        assert await models_of(before, returning) == {session: at_first[session] for session in returning}

        baseline = sorted(set(sessions) - canary)[:2_000]
        later = await models_of(after, [*canary, *baseline])
        moved = on_canary(later) - canary
        assert canary <= on_canary(later)
        # Of the 90 that were not on it, 20 go over.
        share = len(moved) / len(baseline)
        assert abs(share - 20 / 90) <= STANDARD_ERRORS * sqrt(20 / 90 * 70 / 90 / len(baseline))
