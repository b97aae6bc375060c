"""What README and docs say is tried here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from demo.processes import command
from ext_proc.config.load import load_text
from tests.support.mesh import LIMIT_S

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = (ROOT / "README.md", ROOT / "envoy/README.md", *sorted((ROOT / "docs").rglob("*.md")))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_example_configuration_loads_without_a_warning() -> None:
    (example,) = blocks("yaml")
    environ = {"OPENAI_API_KEY": "k", "ARCH_SALT": "s" * 32}
    assert load_text(example, "README.md", environ, lambda: b"").warnings == ()


STEERING = [line for line in commands() if line.startswith("arch-ext-proc rollout ")]
ALONE = [line for line in commands() if line.startswith("arch-ext-proc") and line not in STEERING]


@pytest.mark.parametrize("line", ALONE)
def test_a_command_of_the_readme_runs(line: str) -> None:
    _, *arguments = shlex.split(line)
    if arguments[0] == "serve":
        arguments = ["serve", "--help"]  # the end-to-end tests run it
    done = subprocess.run([command("arch-ext-proc"), *arguments], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout


def recipe(target: str) -> list[str]:
    """The one command of a make target, with this Python in the place of the environment's."""
    (found,) = re.findall(rf"^{target}:.*\n\t@(.*)\n", (ROOT / "Makefile").read_text(), re.MULTILINE)
    program, *arguments = shlex.split(found.replace("$(BIN)/", ""))
    assert program == "python"
    return [sys.executable, *arguments]


def test_the_make_targets_of_the_readme_are_tried_here() -> None:
    targets = {line.split()[1] for line in commands() if line.startswith("make ")}
    targets |= set(re.findall(r"`make (\w+)`", README))
    # `make test` runs this, and its recipe is no more than pytest. A benchmark is no test, and test_site.py
    # builds the docs.
    assert targets == {"demo", "run", "test", "bench", "docs"}
    assert recipe("test") == [sys.executable, "-m", "pytest"]
    assert recipe("bench")[:3] == [sys.executable, "-m", "bench.run"]


def test_the_demo_keeps_its_promises() -> None:
    done = subprocess.run(recipe("demo"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for promise in (
        "16 of 16 answered",
        "copies reached the shadow's upstream",
        "sessions of the canary stayed on it",
        "their answers were compared",
        "the good canary was promoted",
        "the bad canary was rolled back",
        "20 requests, 0 failed",
        "requests sent, 0 failed",
        "All as promised",
    ):
        assert promise in done.stdout


async def steer(admin_url: str) -> None:
    """The commands about rollouts, in the order of the page, beside `make run`."""
    assert STEERING
    for line in STEERING:
        process = await asyncio.create_subprocess_exec(
            command("arch-ext-proc"),
            *shlex.split(line)[1:],
            env={**os.environ, "ARCH_ADMIN_URL": admin_url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        assert b"customer support" in output or b"TIME" in output


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=lambda end: end.name)
async def test_run_keeps_the_stack_up_and_prints_a_request_that_works_until_it_is_ended(
    end: signal.Signals,
) -> None:
    usual = socket.socket()
    with contextlib.suppress(OSError):  # somebody else has it: as good
        usual.bind(("127.0.0.1", 10_000))
    process = await asyncio.create_subprocess_exec(
        *recipe("run"), cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout
    said = ""
    try:
        async with asyncio.timeout(LIMIT_S):
            while "Decisions, until Ctrl-C" not in said:
                line = await process.stdout.readline()
                assert line, said
                said += line.decode()
            (curl,) = re.findall(r"^curl .*\\\n.*$", said, re.MULTILINE)
            program, *arguments = shlex.split(curl.replace("\\\n", " "))
            (url,) = [word for word in arguments if word.startswith("http://")]
            name, value = arguments[arguments.index("-H") + 1].split(": ")
            data = arguments[arguments.index("-d") + 1]
            assert {program, *arguments} == {"curl", "-i", "-H", "-d", url, f"{name}: {value}", data}
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, data=data, headers={name: value}) as answer,
            ):
                assert answer.status == 200
                assert (await answer.json())["choices"]
                assert "x-arch-reason" in answer.headers
            assert re.search(r"port 10000 \(ENVOY_PORT\) is taken", said)
            assert ":10000/" not in url
            (page,) = re.findall(r"^page +(http://\S+/) ", said, re.MULTILINE)
            async with aiohttp.ClientSession() as session, session.get(page) as answer:
                assert (answer.status, answer.content_type) == (200, "text/html")
            columns, decision = [(await process.stdout.readline()).decode() for _ in range(2)]
            assert columns.startswith("time")
            assert decision.endswith(" ms\n")
            (admin_url,) = re.findall(r"^server +(http://\S+)/metrics", said, re.MULTILINE)
            await steer(admin_url)
        process.send_signal(end)
        assert await asyncio.wait_for(process.wait(), LIMIT_S) == 0
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].partition("/")[0]))
    finally:
        usual.close()
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
