"""The migration of docs/rollouts.md, its configuration and its commands in order, with real traffic."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.support.mesh import run as run_command
from tests.support.mesh import running_mesh
from tests.support.rollout_traffic import Rollout

PAGE = (Path(__file__).parents[2] / "docs" / "rollouts.md").read_text()
POLICY = "code generation"

# The page's figures are for a day with traffic. Here it has to be seconds, on ports of the test's own.
CHANGED = {
    '"http://qwen:8000/v1"': "$CODER_UPSTREAM",
    '"http://qwen-next:8000/v1"': "$NEXT_UPSTREAM",
    "{model: openai/gpt-4o-mini,": "{model: openai/gpt-4o-mini, base_url: $OPENAI_UPSTREAM,",
    "interval: 1m": "interval: 200ms",
    "min_requests: 200": "min_requests: 15",
    "metrics: [error_rate, left_share, latency_p95, first_byte_p95]": (
        "metrics: [{metric: error_rate, max_degradation: 0.4}]"
    ),
    "/var/lib/arch-ext-proc/rollouts.sqlite": "$ROLLOUT_STORE",
}
ADDED = """
routing: {router: {type: embedded, threshold: 0}, deadline: 20s}
server: {port: "${ARCH_PORT}"}
admin: {port: "${ARCH_ADMIN_PORT}"}
envoy:
  listener: {port: "${ENVOY_PORT}"}
  admin: {port: "${ENVOY_ADMIN_PORT}"}
  message_timeout: 30s
"""


def configuration() -> str:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for old, new in CHANGED.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text + ADDED


def commands() -> list[str]:
    return [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


async def test_the_migration_of_the_page(tmp_path: Path) -> None:
    config = tmp_path / "arch_config.yaml"
    config.write_text(configuration())
    environ = {
        "OPENAI_API_KEY": "k",
        "ARCH_SALT": "s" * 32,
        "ROLLOUT_STORE": str(tmp_path / "rollouts.sqlite"),
    }
    async with running_mesh(config, tmp_path, "openai", "coder", "next", environ=environ) as mesh:
        rollout = Rollout(mesh, POLICY, "write a function, script, SQL query or test")
        given = {**mesh.stack.environ, "ARCH_ADMIN_URL": mesh.stack.admin_url}
        told: dict[str, str] = {}
        for line in commands():
            if "resume" in line:
                async with rollout.traffic():
                    await rollout.becomes("paused", weight=25.0)
            arguments = [str(config) if word == "arch_config.yaml" else word for word in shlex.split(line)]
            status, output, errors = await run_command(*arguments, environ=given)
            assert (status, errors) == (0, ""), line
            told[line] = output
        assert "ok" in told["arch-ext-proc check arch_config.yaml"]
        assert 'rollout of "code generation": ' in told["arch-ext-proc check arch_config.yaml"]
        assert "progressing" in told["arch-ext-proc rollout list"]
        for what in ("phase", "steps", "waits for", "exposed", "METRIC"):
            assert what in told[f'arch-ext-proc rollout show "{POLICY}"']
        history = told[f'arch-ext-proc rollout history "{POLICY}"']
        for cause in (
            "started",
            "analysis_passed",
            "pause_step",
            "command",
            "0 → 5 %",
            "5 → 25 %",
            "→ 100 %",
        ):
            assert cause in history
        assert "promoted" in history.splitlines()[-1]
