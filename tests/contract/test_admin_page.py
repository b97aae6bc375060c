"""What the admin page reads and asks, over HTTP, without a browser: contents, bounds, and who may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ext_proc.admin import page
from ext_proc.admin.app import AdminServer, Sources
from ext_proc.admin.events import AT_ONCE, MAX_CLIENTS
from ext_proc.admin.page import FILES, HEADERS
from ext_proc.admin.trying import MAX_AT_ONCE, MAX_BODY_BYTES
from ext_proc.core.errors import Reason
from ext_proc.core.exchange import Decide, Part, RequestHeaders
from ext_proc.core.settings import Address
from ext_proc.core.types import Decision, Dialect, Outcome, Secret, Verdict
from ext_proc.telemetry import Telemetry
from tests.support.builders import a_route, a_shadow, a_snapshot, a_target
from tests.support.mesh import eventually

TOKEN = "the-admin-token-of-this-test"
SNAPSHOT = a_snapshot(
    routes=(
        a_route(a_target("vllm/present"), a_target("vllm/next"), policy="coding"),
        a_route(a_target("vllm/present"), policy="legal", shadows=(a_shadow(a_target("vllm/next"), 20),)),
    )
)


@dataclass
class Explainer:
    """Takes note of what it is asked, and waits until it may answer."""

    asked: list[tuple[Any, str | None]] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False

    async def __call__(self, body: bytes, dialect: Dialect, session: str | None) -> Mapping[str, Any]:
        assert dialect is Dialect.CHAT_COMPLETIONS
        self.asked.append((json.loads(body), session))
        await self.may_answer.wait()
        if self.fails:
            raise RuntimeError("about a secret message")
        return {"reason": "policy"}


@dataclass
class Admin:
    url: str
    telemetry: Telemetry
    explainer: Explainer
    server: AdminServer
    http: aiohttp.ClientSession

    def decide(self, times: int = 1, policy: str | None = "coding", **changes: Any) -> None:
        given = {"target": a_target("vllm/present"), "reason": Reason.POLICY, "arm": "baseline"}
        decision = Decision(**{**given, "policy": policy, **changes})
        verdict = Verdict(policy, ((policy, 0.75),)) if policy else None
        request = Decide(
            Part.REQUEST_BODY, Dialect.CHAT_COMPLETIONS, RequestHeaders(request_id="r-1"), b"secret text"
        )
        for _ in range(times):
            self.telemetry.decided(request, Outcome(decision, 0.004, verdict, 0.003))

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.http.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, data: Any, **headers: str) -> tuple[int, Any]:
        headers = {"content-type": "application/json", **headers}
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        async with self.http.post(self.url + path, data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    @asynccontextmanager
    async def events(self, **headers: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        async with self.http.get(f"{self.url}/events", headers=headers) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            yield _events(answer.content)


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    fields: dict[str, str] = {}
    async for line in content:
        name, _, value = line.decode().strip().partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            assert fields["event"] == "decisions"
            batch = json.loads(fields["data"])
            assert fields["id"] == batch["cursor"]
            yield batch
            fields = {}


@asynccontextmanager
async def an_admin(token: str | None = None, host: str = "127.0.0.1") -> AsyncIterator[Admin]:
    telemetry, explainer = Telemetry(), Explainer()
    telemetry.follow(lambda: SNAPSHOT)
    server = AdminServer(
        Address(host, 0),
        telemetry,
        is_ready=lambda: True,
        token=lambda: Secret(token) if token else None,
        sources=Sources(current=lambda: SNAPSHOT, config=lambda: {"text": "a: 1"}, explainer=explainer),
    )
    port = await server.start()
    connector = aiohttp.TCPConnector(limit=0)
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession(connector=connector) as http:
            yield Admin(f"http://127.0.0.1:{port}", telemetry, explainer, server, http)
    finally:
        await server.stop()


class TestOverview:
    async def test_what_is_configured_stands_beside_what_was_seen(self) -> None:
        async with an_admin() as admin:
            admin.decide(3)
            admin.decide(target=a_target("vllm/next"), arm="canary")
            admin.decide(policy=None, target=a_target(), arm=None, reason=Reason.ROUTER_TIMEOUT)
            status, found = await admin.get("/overview")
        assert status == 200
        assert (found["revision"], found["default"], found["changes"]) == ("r1", "openai/small", "free")
        coding, legal = found["policies"]
        assert [(one["model"], one["configured"], one["decided"]) for one in coding["targets"]] == [
            ("vllm/present", 50, 3),
            ("vllm/next", 50, 1),
        ]
        assert sum(coding["targets"][0]["trend"]) == 3
        assert (legal["targets"][0]["decided"], legal["shadows"]) == (
            0,
            [{"model": "vllm/next", "percent": 20}],
        )
        assert [(one["name"], one["targets"][0]["model"]) for one in found["others"]] == [
            ("", "openai/small")
        ]
        assert {"reason": "router_timeout", "count": 1, "fallback": True} in found["reasons"]
        assert found["router"]["count"] == found["decision"]["count"] == 5
        assert sum(found["decided"]) == 5

    async def test_an_arm_that_the_file_does_not_name_is_shown_as_such(self) -> None:
        async with an_admin() as admin:
            admin.decide(arm=None, target=a_target("openai/small"))
            _, found = await admin.get("/overview")
        assert [(one["model"], one["configured"]) for one in found["policies"][0]["targets"]] == [
            ("vllm/present", 50),
            ("vllm/next", 50),
            ("openai/small", None),
        ]

    async def test_faults_of_every_kind(self) -> None:
        async with an_admin() as admin:
            admin.telemetry.unknown_message()
            admin.telemetry.copy_dropped("vllm/next")
            admin.telemetry.router_fell_back(Reason.ROUTER_UNREACHABLE)
            admin.telemetry.bug(ValueError("a secret"), "r-1")
            _, found = await admin.get("/overview")
        assert {(fault["kind"], fault["what"]) for fault in found["faults"]} == {
            ("stream", "unknown_message"),
            ("stream", "bug"),
            ("copy dropped", "vllm/next"),
            ("router", "router_unreachable, fallback asked"),
        }


class TestDecisions:
    async def test_no_text_is_in_them(self) -> None:
        async with an_admin() as admin:
            admin.decide()
            _, found = await admin.get("/decisions")
            assert "secret" not in json.dumps(found)
            (entry,) = found["entries"]
            assert (entry["request_id"], entry["policy"], entry["score"]) == ("r-1", "coding", 0.75)

    async def test_a_client_goes_on_where_it_was(self) -> None:
        async with an_admin() as admin:
            admin.decide(3)
            _, first = await admin.get("/decisions?limit=2")
            assert len(first["entries"]) == 2
            admin.decide()
            _, second = await admin.get(f"/decisions?after={first['cursor']}")
            assert [entry["number"] for entry in second["entries"]] == [4]
            _, other = await admin.get("/decisions?after=another-4")
            assert len(other["entries"]) == 4
            assert (await admin.get("/decisions?limit=x"))[0] == 400


class TestEvents:
    async def test_decisions_come_as_they_are_made(self) -> None:
        async with an_admin() as admin:
            admin.decide(2)
            async with admin.events() as events:
                assert len((await anext(events))["entries"]) == 2
                admin.decide()
                batch = await anext(events)
                assert [entry["number"] for entry in batch["entries"]] == [3]
            admin.decide()
            async with admin.events(**{"last-event-id": batch["cursor"]}) as events:
                assert [entry["number"] for entry in (await anext(events))["entries"]] == [4]

    async def test_the_newest_are_sent_and_the_others_counted(self) -> None:
        async with an_admin() as admin:
            admin.decide()
            async with admin.events() as events:
                await anext(events)
                admin.decide(2 * AT_ONCE)
                batch = await anext(events)
        assert (len(batch["entries"]), batch["skipped"]) == (AT_ONCE, AT_ONCE)
        assert batch["entries"][-1]["number"] == 2 * AT_ONCE + 1

    async def test_clients_are_bounded_and_their_places_come_free(self) -> None:
        async with an_admin() as admin:
            answers = [await admin.http.get(f"{admin.url}/events") for _ in range(MAX_CLIENTS)]
            assert {answer.status for answer in answers} == {200}
            status, found = await admin.get("/events")
            assert (status, found) == (503, {"error": f"{MAX_CLIENTS} pages are open already: close one"})
            for answer in answers:
                answer.close()

            async def is_free() -> bool:
                async with admin.http.get(f"{admin.url}/events") as answer:
                    return answer.status == 200

            while not await is_free():
                await asyncio.sleep(0.05)

    async def test_a_stop_waits_for_no_page(self) -> None:
        async with an_admin() as admin, admin.http.get(f"{admin.url}/events") as answer:
            assert answer.status == 200
            await admin.server.stop()
            assert await answer.read() == b": nothing new\n\n"


class TestTrying:
    async def test_a_message_is_explained(self) -> None:
        async with an_admin() as admin:
            admin.explainer.may_answer.set()
            assert await admin.post("/try", {"message": "hi", "session": "s", "model": "m"}) == (
                200,
                {"reason": "policy"},
            )
            several = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "?"}]
            assert (await admin.post("/try", {"messages": several}))[0] == 200
            one = [{"role": "user", "content": "hi"}]
            assert admin.explainer.asked == [
                ({"messages": one, "model": "m"}, "s"),
                ({"messages": several}, None),
            ]

    @pytest.mark.parametrize(
        "given", [b"{", b"[]", {}, {"message": 1}, {"message": "x", "session": 1}, b"[" * 5_000]
    )
    async def test_what_makes_no_sense_is_refused(self, given: Any) -> None:
        async with an_admin() as admin:
            assert (await admin.post("/try", given))[0] == 400
            assert admin.explainer.asked == []

    async def test_it_is_bounded(self) -> None:
        async with an_admin() as admin:
            status, found = await admin.post("/try", {"message": "x" * MAX_BODY_BYTES})
            assert (status, found) == (413, {"error": "at most 64 KiB can be tried"})
            async with asyncio.TaskGroup() as group:
                running = [
                    group.create_task(admin.post("/try", {"message": "x"})) for _ in range(MAX_AT_ONCE)
                ]
                await eventually(lambda: len(admin.explainer.asked) == MAX_AT_ONCE, "all are asked")
                assert (await admin.post("/try", {"message": "x"}))[0] == 429
                admin.explainer.may_answer.set()
            assert [task.result()[0] for task in running] == [200] * MAX_AT_ONCE
            assert (await admin.post("/try", {"message": "x"}))[0] == 200

    async def test_a_bug_tells_nothing_of_the_message(self) -> None:
        async with an_admin() as admin:
            admin.explainer.may_answer.set()
            admin.explainer.fails = True
            status, found = await admin.post("/try", {"message": "x"})
            assert (status, found) == (500, {"error": "the server has a bug: its log says where"})
            assert b'arch_ext_proc_stream_errors_total{kind="bug"} 1.0' in admin.telemetry.exposition()

    async def test_it_needs_what_a_change_needs(self) -> None:
        async with an_admin(TOKEN) as admin:
            admin.explainer.may_answer.set()
            assert (await admin.get("/overview"))[1]["changes"] == "token"
            assert (await admin.post("/try", {"message": "x"}))[0] == 401
            assert (await admin.post("/try", {"message": "x"}, authorization=f"Bearer {TOKEN}"))[0] == 200
        async with an_admin(host="0.0.0.0") as admin:
            assert (await admin.get("/overview"))[1]["changes"] == "off"
            assert (await admin.post("/try", {"message": "x"}))[0] == 403


class TestStrangers:
    async def test_another_sites_page_gets_nothing_tried(self) -> None:
        async with an_admin() as admin:
            admin.explainer.may_answer.set()
            for origin in ("http://evil.example", "null", f"https://{admin.url[7:]}x"):
                assert (await admin.post("/try", {"message": "x"}, origin=origin))[0] == 403
            assert (await admin.post("/try", {"message": "x"}, origin=admin.url))[0] == 200

    @pytest.mark.parametrize(
        "path", ["/", "/overview", "/decisions", "/events", "/config", "/shadows", "/rollouts"]
    )
    async def test_a_name_made_to_point_here_sees_nothing(self, path: str) -> None:
        async with an_admin() as admin:
            for host in ("evil.example:9902", "127.0.0.1.evil.example", "0.0.0.0"):
                assert (await admin.get(path, host=host))[0] == 403
            for host in ("localhost:9902", "[::1]:9902", "127.0.0.1"):
                async with admin.http.get(admin.url + path, headers={"host": host}) as answer:
                    assert answer.status == 200

    async def test_probes_and_scrapers_may_use_any_name(self) -> None:
        async with an_admin() as admin:
            for path in ("/healthz", "/readyz", "/metrics"):
                async with admin.http.get(admin.url + path, headers={"host": "a-service"}) as answer:
                    assert answer.status == 200

    def test_every_file_of_the_page_is_served(self) -> None:
        folder = Path(page.__file__).with_name("page")
        assert {name for name, _ in FILES.values()} == {file.name for file in folder.iterdir()}

    async def test_everything_says_what_a_browser_may_do_with_it(self) -> None:
        async with an_admin() as admin:
            for path in (*FILES, "/overview", "/metrics", "/events", "/nowhere"):
                async with admin.http.get(admin.url + path) as answer:
                    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
                    wanted = "no-cache" if path in FILES else "no-store"
                    assert answer.headers["cache-control"] == wanted
