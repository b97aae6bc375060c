"""Whatever changes something on the admin port asks who wants it, endpoints of the future included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from ext_proc.admin.app import AdminServer, Sources
from ext_proc.core.settings import Address
from ext_proc.core.types import Secret
from ext_proc.telemetry import Telemetry
from tests.support.builders import a_snapshot

TOKEN = "a-token-of-the-admins"
SNAPSHOT = a_snapshot()


@asynccontextmanager
async def an_admin(
    token: str | None, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[aiohttp.ClientSession, str, Any]]:
    server = AdminServer(
        Address(host, 0),
        Telemetry(),
        is_ready=lambda: True,
        token=lambda: Secret(token) if token else None,
        sources=Sources(current=lambda: SNAPSHOT),
    )
    port = await server.start()
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as http:
            yield http, f"http://127.0.0.1:{port}", server.application.router
    finally:
        await server.stop()


def changing(router: Any) -> list[tuple[str, str]]:
    """Every endpoint that is more than a look."""
    found = [
        (route.method, route.resource.canonical.format(policy="coding", verb="promote"))
        for route in router.routes()
        if route.method not in ("GET", "HEAD")
    ]
    assert {path for _, path in found} >= {"/try", "/rollouts/coding/promote"}
    return found


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer \u00ff\u00fe"},
        {"cookie": f"token={TOKEN}"},
    ],
    ids=str,
)
async def test_each_wants_the_token(given: dict[str, str]) -> None:
    async with an_admin(TOKEN) as (http, url, router):
        for method, path in changing(router):
            async with http.request(method, url + path, data=b"{}", headers={**JSON, **given}) as answer:
                assert (path, answer.status) == (path, 401)
                assert TOKEN not in await answer.text()


@pytest.mark.parametrize(
    "given",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"host": "evil.example"},
        {"host": "localhost:port"},
        {"host": "localhost:99999"},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
    ],
    ids=str,
)
async def test_without_a_token_none_is_for_another_sites_page(given: dict[str, str]) -> None:
    async with an_admin(None) as (http, url, router):
        for method, path in changing(router):
            async with http.request(method, url + path, data=b"{}", headers={**JSON, **given}) as answer:
                assert (path, answer.status) == (path, 403)


async def test_without_a_token_none_is_for_other_machines() -> None:
    async with an_admin(None, host="0.0.0.0") as (http, url, router):
        for method, path in changing(router):
            async with http.request(method, url + path, data=b"{}", headers=JSON) as answer:
                assert (path, answer.status) == (path, 403)


async def test_bytes_that_are_no_text_are_no_token() -> None:
    async with an_admin(TOKEN) as (_, url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST /try HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer \xff\xfe\r\n")
        writer.write(b"content-length: 0\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer.split(b"\r\n")[0].split()[1] == b"401"
