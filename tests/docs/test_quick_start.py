"""docs/quick-start.md with the real Envoy: its files, its request, its canary, its end."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections import Counter
from pathlib import Path

from demo.stand_in import Behaviour
from ext_proc.cli.main import _parser
from ext_proc.config.load import load_text
from tests.support.mesh import LIMIT_S, Mesh, running_mesh
from tests.support.reloaded import Reloaded

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "quick-start.md").read_text()
FILE, CANARY = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
SALT = "0123456789abcdef"

# Ports of the test's own, and a busy machine's time.
ADDED = """
routing: {deadline: 20s}
server: {port: "${ARCH_PORT}"}
admin: {port: "${ARCH_ADMIN_PORT}"}
envoy:
  listener: {port: "${ENVOY_PORT}"}
  admin: {port: "${ENVOY_ADMIN_PORT}"}
  message_timeout: 30s
"""


def here(text: str) -> str:
    assert text.count("http://127.0.0.1:8103/v1") == 2
    assert text.count("http://127.0.0.1:8104/v1") == 1
    present = text.replace("http://127.0.0.1:8103/v1", "$PRESENT_UPSTREAM")
    return present.replace("http://127.0.0.1:8104/v1", "$NEXT_UPSTREAM") + ADDED


def with_canary() -> str:
    """The file as section 5 changes it."""
    first, second = re.findall(r"^ +- \{model: \S+ weight: \d+\}\n", FILE, re.MULTILINE)
    _, *targets = CANARY.splitlines(keepends=True)
    assert [line.partition(",")[0] for line in targets] == [
        line.partition(",")[0] for line in (first, second)
    ]
    return FILE.replace(first + second, "".join(targets))


def test_its_commands_are_commands() -> None:
    ran = []
    for line in COMMANDS:
        program, *arguments = shlex.split(line.partition(" &")[0].partition(" >")[0])
        if program == "arch-ext-proc":
            assert _parser(arguments[0]).parse_args(arguments)
            ran.append(arguments[0])
        else:
            assert program in {"make", ".", "python", "export", "envoy", "curl", "for", "kill"}
    assert ran == ["check", "explain", "serve", "render", "top"]
    # `kill %3` is the server's job.
    assert [line.split()[0] for line in COMMANDS if line.endswith(" &")][2] == "arch-ext-proc"
    makefile = (ROOT / "Makefile").read_text()
    assert COMMANDS[0] == "make .venv/.demo"
    assert "\n$(VENV)/.demo:" in makefile


async def saved(mesh: Mesh, model: str) -> int:
    """Answers for another that failed, as the page shows them. They are counted after clients have them."""
    async with mesh.http.get(f"{mesh.stack.admin_url}/overview") as answer:
        policies = (await answer.json())["policies"]
    targets = [target for policy in policies for target in policy["targets"]]
    return sum(one["answered"] for one in targets if one["model"] == model and one["configured"] is None)


async def test_from_nothing_to_a_canary_and_to_a_server_that_is_dead(tmp_path: Path) -> None:
    file = tmp_path / "config" / "quick.yaml"
    file.parent.mkdir()
    file.write_text(here(FILE))
    (curl,) = [line for line in COMMANDS if line.startswith("curl ")]
    words = shlex.split(curl)
    question = json.loads(words[words.index("-d") + 1])
    (loop,) = [line for line in COMMANDS if line.startswith("for ")]
    assert json.dumps(question) in loop
    environ = {"ARCH_SALT": SALT}
    async with (
        asyncio.timeout(5 * LIMIT_S),
        running_mesh(file, tmp_path, "present", "next", environ=environ) as mesh,
    ):
        reply = await mesh.send(question)
        assert (reply.status, reply.policy) == (200, "code generation")
        assert (reply.model, reply.reason) == ("vllm/coder", "policy")

        await Reloaded(mesh, file).put(here(with_canary()))
        seen: list[Counter[str | None]] = [Counter(), Counter()]
        kept: dict[int, set[str | None]] = {}
        for round_ in seen:
            for session in range(1, 51):
                reply = await mesh.send(question, headers=[("x-arch-session", str(session))])
                round_[reply.model] += 1
                kept.setdefault(session, set()).add(reply.model)
        assert seen[0] == seen[1]
        assert set(seen[0]) == {"vllm/coder", "vllm/coder-next"}
        assert seen[0]["vllm/coder"] > seen[0]["vllm/coder-next"]
        assert all(len(models) == 1 for models in kept.values())

        mesh.providers["next"].behave = Behaviour(status=503)
        for session in range(1, 51):
            reply = await mesh.send(question, headers=[("x-arch-session", str(session))])
            assert (reply.status, reply.policy) == (200, "code generation")
            assert reply.model in {"vllm/coder", "vllm/small"}
            assert (reply.model == "vllm/small") == (kept[session] == {"vllm/coder-next"})
        while not await saved(mesh, "vllm/small"):
            await asyncio.sleep(0.1)

        await mesh.stack.server.kill()
        reply = await mesh.send(question)
        assert (reply.status, reply.reason) == (200, "server_unavailable")


def test_its_files_are_sound() -> None:
    for text in (FILE, with_canary()):
        assert load_text(text, "f", {"ARCH_SALT": SALT}, lambda: b"").warnings == ()
