"""`arch-ext-proc top` against an admin port: one look, a terminal, and a server that goes and comes back."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from demo.processes import command, free_port
from ext_proc.admin.app import AdminServer, Sources
from ext_proc.cli.main import main
from ext_proc.cli.top import Watch
from ext_proc.cli.top_view import clean
from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Decide, Part, RequestHeaders
from ext_proc.core.settings import Address
from ext_proc.core.types import Decision, Dialect, Outcome, Verdict
from ext_proc.telemetry import Telemetry
from tests.support.builders import a_route, a_snapshot, a_target
from tests.support.mesh import eventually
from tests.support.replicas import an_answer

PRESENT, NEXT = a_target("vllm/present"), a_target("vllm/next")
ESCAPE = "evil\x1b]0;title\x07\x1b[2J"
SNAPSHOT = a_snapshot(routes=(a_route(PRESENT, NEXT, policy="coding"), a_route(PRESENT, policy=ESCAPE)))


@asynccontextmanager
async def a_server(port: int = 0) -> AsyncIterator[tuple[str, Telemetry]]:
    telemetry = Telemetry()
    telemetry.follow(lambda: SNAPSHOT)
    sources = Sources(current=lambda: SNAPSHOT)
    server = AdminServer(Address("127.0.0.1", port), telemetry, is_ready=lambda: True, sources=sources)
    url = f"http://127.0.0.1:{await server.start()}"
    try:
        yield url, telemetry
    finally:
        await server.stop()


def decide(telemetry: Telemetry, request_id: str = "r", policy: str = "coding") -> None:
    request = Decide(Part.REQUEST_BODY, Dialect.CHAT_COMPLETIONS, RequestHeaders(request_id=request_id), b"")
    decision = Decision(NEXT, Reason.POLICY, policy=policy, arm="canary")
    telemetry.decided(request, Outcome(decision, 0.004, Verdict(policy, ((policy, 0.75),)), 0.003))


async def top(capsys: pytest.CaptureFixture[str], url: str) -> tuple[int, str, str]:
    status = await asyncio.to_thread(main, ["top", "--once", "--admin", url])
    output = capsys.readouterr()
    return status, output.out, output.err


async def test_one_look(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    async with a_server() as (url, telemetry):
        decide(telemetry)
        telemetry.activity.observed(
            an_answer(policy="coding", target="vllm/next", request_id="r", status=503, latency_s=0.25)
        )
        telemetry.unknown_message()
        status, text, errors = await top(capsys, url)
    assert (status, errors) == (0, "")
    lines = [line.split() for line in text.splitlines()]
    assert ["coding", "vllm/present", "baseline", "0.0", "%", "50", "%", "0", "–"] in [
        line[:9] for line in lines
    ]
    assert ["vllm/next", "canary", "100.0", "%", "50", "%", "1", "1"] in [line[:8] for line in lines]
    assert ["coding", "0.75", "vllm/next", "canary", "policy", "4.00", "503", "250"] in [
        line[1:] for line in lines
    ]
    assert "failed: provider vllm/next 1, stream unknown_message 1" in text


@pytest.mark.parametrize(("status", "shown"), [(None, "–"), (200, "0"), (503, "1")])
async def test_no_failure_is_claimed_of_answers_that_nobody_saw(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, status: int | None, shown: str
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    async with a_server() as (url, telemetry):
        decide(telemetry)
        if status is not None:
            telemetry.activity.observed(an_answer(policy="coding", target="vllm/next", status=status))
        _, text, _ = await top(capsys, url)
    assert ["vllm/next", "canary", "100.0", "%", "50", "%", "1", shown] in [
        line.split()[:8] for line in text.splitlines()
    ]


@pytest.mark.parametrize("width", [80, 60])
async def test_where_there_is_little_room_no_number_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    async with a_server() as (url, telemetry):
        for _ in range(1_000):
            decide(telemetry)
        telemetry.activity.observed(an_answer(policy="coding", target="vllm/next", status=503))
        _, text, _ = await top(capsys, url)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines)
    (columns,) = [line.split() for line in lines if line.startswith("POLICY")]
    assert columns == ["POLICY", "MODEL", "ARM", "SEEN", "SET", "DECIDED", "FAILED"]
    (canary,) = [line for line in lines if "1,000" in line]
    assert canary.split()[1:] == ["canary", "100.0", "%", "50", "%", "1,000", "1"]
    decisions = [line.split() for line in lines if "0.75" in line]
    assert {(row[2], row[4], row[6], row[7]) for row in decisions} == {("0.75", "canary", "4.00", "–")}
    assert {len(row[0]) for row in decisions} == {len("12:34:56")}


async def test_a_name_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    async with a_server() as (url, telemetry):
        decide(telemetry, policy=ESCAPE)
        _, text, _ = await top(capsys, url)
    assert "evil" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert clean("é 漢 \x1b\n\u202e") == "é 漢 ���"


async def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    status, text, errors = await top(capsys, url)
    assert (status, text) == (1, "")
    assert errors.startswith(f"arch-ext-proc top: no answer from {url}: ")
    assert errors.endswith(" (name a server's admin address with --admin or ARCH_ADMIN_URL)\n")


@pytest.mark.parametrize("path", ["/metrics", "/nowhere"])
async def test_another_address(capsys: pytest.CaptureFixture[str], path: str) -> None:
    async with a_server() as (url, _):
        status, _, errors = await top(capsys, url + path)
    hint = "(name a server's admin address with --admin or ARCH_ADMIN_URL)"
    assert (status, errors) == (1, f"arch-ext-proc top: {url}{path} answered 404 {hint}\n")


async def test_what_was_seen_stays_while_the_server_is_away() -> None:
    port = free_port()
    async with a_server(port) as (url, telemetry):
        watch = Watch(url)
        decide(telemetry, "before")
        await asyncio.to_thread(watch.look)
        assert (watch.problem, [row["request_id"] for row in watch.rows]) == ("", ["before"])
    await asyncio.to_thread(watch.look)
    assert watch.problem.startswith("no answer from ")
    assert watch.overview["revision"] == "r1"
    async with a_server(port) as (_, telemetry):
        decide(telemetry, "after")
        await asyncio.to_thread(watch.look)
        assert (watch.problem, [row["request_id"] for row in watch.rows]) == ("", ["after", "before"])


async def test_in_a_terminal_until_ctrl_c() -> None:
    port = free_port()
    ours, theirs = pty.openpty()
    seen = bytearray()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            seen.extend(os.read(ours, 65_536))
        except OSError:  # the other side is closed
            loop.remove_reader(ours)

    loop.add_reader(ours, read)
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40"}
    try:
        async with a_server(port) as (url, telemetry):
            decide(telemetry)
            process = await asyncio.create_subprocess_exec(
                command("arch-ext-proc"),
                *("top", "--admin", url, "--interval", "0.1"),
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=environ,
            )
            os.close(theirs)
            await eventually(lambda: b"canary" in seen, "it shows a decision")
        await eventually(lambda: b"trying again, and this is old" in seen, "it says that nobody answers")
        seen.clear()
        async with a_server(port) as (_, telemetry):
            await eventually(lambda: seen.count(b"router p50") > 3, "it goes on")
            seen.clear()
            await eventually(lambda: seen.count(b"router p50") > 1, "it shows the server again")
            assert b"trying again" not in seen
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    finally:
        loop.remove_reader(ours)
        os.close(ours)
