"""A mesh whose configuration file a test writes anew."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.mesh import Mesh, running_mesh

WRITING = "writing new functions, scripts, queries or boilerplate code from a description"
"""Not what clients write: the file is shown at `/config`, and their texts are shown nowhere."""

PROVIDERS = ("openai", "coder", "next")


def a_file(
    *,
    coding: str = "vllm/coder",
    described: str = WRITING,
    extra: str = "",
    providers: str = "",
    routing: str = "{router: {type: embedded, threshold: 0}, deadline: 20s}",
    key: str = "$CODER_KEY",
) -> str:
    """A file for three providers, with a policy about code and one about trips."""
    return f"""
model_providers:
  - {{model: openai/gpt-4o-mini, default: true, cluster: openai, base_url: $OPENAI_UPSTREAM}}
  - {{model: vllm/coder, cluster: coder, base_url: $CODER_UPSTREAM, access_key: {key}}}
  - {{model: vllm/next, cluster: next, base_url: $NEXT_UPSTREAM}}
{providers}
routing_preferences:
  - name: code
    description: {described}
    models: [{coding}]
    {extra}
  - name: travel
    description: planning trips and finding flights, hotels and trains
    models: [openai/gpt-4o-mini]
routing: {routing}
affinity: {{salt: reload-tests-salt}}
rollouts: {{store: "${{ROLLOUT_STORE:-memory}}"}}
server: {{port: "${{ARCH_PORT}}", drain: 5s}}
admin: {{port: "${{ARCH_ADMIN_PORT}}"}}
envoy:
  listener: {{port: "${{ENVOY_PORT}}"}}
  admin: {{port: "${{ENVOY_ADMIN_PORT}}"}}
  message_timeout: 30s
  request_timeout: 60s
"""


@dataclass
class Reloaded:
    """A mesh, and the file that its server reads."""

    mesh: Mesh
    file: Path

    def rename(self, text: str) -> None:
        """Put another text in place as an editor does: written aside, then renamed over."""
        aside = self.file.with_name("aside")
        aside.write_text(text)
        os.replace(aside, self.file)

    async def put(self, text: str) -> dict[str, Any]:
        """Put another text in place, and wait until it is in force."""
        before = await self.outcomes()
        self.rename(text)
        return await self.after(before, "ok")

    async def outcomes(self) -> dict[str, float]:
        found = await self.mesh.metrics()
        name = "arch_ext_proc_config_reloads_total"
        return {dict(labels)["outcome"]: value for (at, labels), value in found.items() if at == name}

    async def after(self, before: Mapping[str, float], outcome: str) -> dict[str, Any]:
        """Wait for one more reload with this outcome: what `/config` says of it."""
        while (await self.outcomes())[outcome] <= before[outcome]:
            await asyncio.sleep(0.02)
        found = await self.config()
        assert found["last_reload"]["outcome"] == outcome, found
        return found

    async def config(self) -> dict[str, Any]:
        async with self.mesh.http.get(f"{self.mesh.stack.admin_url}/config") as answer:
            shown: dict[str, Any] = await answer.json()
            return shown


@asynccontextmanager
async def reloaded_mesh(
    folder: Path, text: str, file: Path | None = None, **environ: str
) -> AsyncIterator[Reloaded]:
    """A mesh of this text. `file`: where it is already."""
    file = file or folder / "config" / "arch_config.yaml"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    async with running_mesh(file, folder, *PROVIDERS, environ=environ, connections=64) as mesh:
        yield Reloaded(mesh, file)
