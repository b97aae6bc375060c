"""The gRPC port through the real Envoy: who gets in, who does not, and certificates that change meanwhile."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from demo.stand_in import Behaviour
from ext_proc.server import wire
from tests.support.certificates import Authority, Made
from tests.support.mesh import CONFIGS, LIMIT_S, Mesh, eventually, running_mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAME = "arch-ext-proc.test"
CONFIGURATION = CONFIGS.parents[2] / "docs/configuration.md"
ENVOY = "spiffe://mesh/envoy"
TOKEN = "the-token-that-envoy-shows"


@dataclass
class Guarded:
    """A mesh with TLS both ways, and what its certificates are made with."""

    mesh: Mesh
    folder: Path
    authority: Authority

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.mesh.stack.environ['ARCH_PORT']}"

    def credentials(self, own: Made | None) -> grpc.ChannelCredentials:
        key, chain = (own.key, own.certificate) if own else (None, None)
        return grpc.ssl_channel_credentials(self.authority.certificate, key, chain)

    async def shown(self) -> bytes:
        """The certificate that a new connection is shown."""
        own = self.authority.certify(ENVOY)
        own.write(self.folder, "probe")
        context = ssl.create_default_context(cadata=self.authority.certificate.decode())
        context.load_cert_chain(self.folder / "probe.crt", self.folder / "probe.key")
        context.set_alpn_protocols(["h2"])
        host, port = self.address.split(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=NAME)
        try:
            shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.close()
        return shown


def sds_of(folder: Path) -> str:
    """The file that docs/configuration.md shows, for this folder."""
    (text,) = re.findall(r"```yml\n(resources:\n.*?)```", CONFIGURATION.read_text(), re.DOTALL)
    return str(text).replace("/etc/envoy/arch", str(folder / "mount"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder, authority = tmp_path_factory.mktemp("guarded"), Authority()
    (folder / "ca.crt").write_bytes(authority.certificate)
    authority.certify(NAME).write(folder, "server")
    authority.certify(ENVOY).mount(folder / "mount")
    (folder / "sds.yaml").write_text(sds_of(folder))
    files = {
        "SERVER_CERTIFICATE": "server.crt",
        "SERVER_KEY": "server.key",
        "CLIENT_CA": "ca.crt",
        "SERVER_CA": "ca.crt",
        "ENVOY_SDS": "sds.yaml",
    }
    environ = {**{name: str(folder / file) for name, file in files.items()}, "ARCH_TOKEN": TOKEN}
    async with running_mesh(
        CONFIGS / "tls.yaml", folder, "openai", "coder", environ=environ, envoy_environ={"ARCH_TOKEN": TOKEN}
    ) as mesh:
        await mesh.decided_again()
        yield Guarded(mesh, folder, authority)


def opened(channel: grpc.aio.Channel, token: str | None, path: str) -> Any:
    """A stream, with nothing sent yet but its metadata."""
    metadata = [("x-arch-role", "route"), *([("x-arch-token", token)] if token is not None else [])]
    method = channel.stream_stream(path, request_serializer=None, response_deserializer=None)
    return method(metadata=metadata, timeout=LIMIT_S)


def asking() -> Any:
    request = pb.ProcessingRequest()
    for key, value in ((":method", "POST"), (":path", "/v1/chat/completions"), ("content-type", "a/b")):
        request.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    return request


PROCESS = f"/{wire.SERVICE}/{wire.METHOD}"
LOGS = f"/{wire.LOG_SERVICE}/{wire.LOG_METHOD}"


async def refusal(channel: grpc.aio.Channel, token: str | None = TOKEN, path: str = PROCESS) -> str:
    """The status that a call ends with, before anything is sent in it."""
    async with channel:
        code: str = (await opened(channel, token, path).code()).name
    return code


def secure(guarded: Guarded, own: Made | None) -> grpc.aio.Channel:
    named = [("grpc.ssl_target_name_override", NAME)]
    return grpc.aio.secure_channel(guarded.address, guarded.credentials(own), options=named)


async def test_envoy_gets_in(guarded: Guarded) -> None:
    mesh = guarded.mesh
    mesh.forget()
    assert (await mesh.ask()).reason == "policy"
    assert mesh.only("coder").headers["authorization"] == "Bearer sk-the-key-of-coder"


async def test_envoys_log_of_breaks_gets_in(guarded: Guarded) -> None:
    mesh = guarded.mesh
    mesh.providers["coder"].behave = Behaviour(reset_after=2)
    try:
        with pytest.raises(aiohttp.ClientPayloadError):
            await mesh.ask(stream=True)
    finally:
        mesh.forget()
    async with asyncio.timeout(LIMIT_S):
        while not await mesh.counted("arch_ext_proc_answer_errors_total", model="vllm/coder"):
            await asyncio.sleep(0.05)


async def test_the_caller_that_has_all_is_told_the_providers_key(guarded: Guarded) -> None:
    """Why the others are kept out."""
    async with secure(guarded, guarded.authority.certify(ENVOY)) as channel:
        stream = opened(channel, TOKEN, PROCESS)
        await stream.write(asking().SerializeToString())
        await stream.done_writing()
        answer = await stream.read()
    assert b"sk-the-key-of-openai" in answer


async def test_plaintext_is_refused(guarded: Guarded) -> None:
    assert await refusal(grpc.aio.insecure_channel(guarded.address)) == "UNAVAILABLE"


@pytest.mark.parametrize("own", ["none", "of another authority"])
async def test_a_caller_without_a_certificate_is_refused(guarded: Guarded, own: str) -> None:
    other = Authority().certify(ENVOY) if own != "none" else None
    assert await refusal(secure(guarded, other)) == "UNAVAILABLE"


@pytest.mark.parametrize("path", [PROCESS, LOGS])
async def test_a_certificate_with_another_name_is_refused(guarded: Guarded, path: str) -> None:
    mesh, before = guarded.mesh, await guarded.mesh.counted("arch_ext_proc_refused_callers_total")
    other = guarded.authority.certify("spiffe://mesh/somebody")
    assert await refusal(secure(guarded, other), path=path) == "UNAUTHENTICATED"
    assert await mesh.counted("arch_ext_proc_refused_callers_total", reason="name") >= 1
    assert await mesh.counted("arch_ext_proc_refused_callers_total") == before + 1


@pytest.mark.parametrize("path", [PROCESS, LOGS])
@pytest.mark.parametrize("token", [None, "", TOKEN[:-1], TOKEN + "x"])
async def test_a_call_without_the_token_is_refused(guarded: Guarded, token: str | None, path: str) -> None:
    own = guarded.authority.certify(ENVOY)
    assert await refusal(secure(guarded, own), token, path) == "UNAUTHENTICATED"


async def test_a_certificate_changes_while_requests_pass(guarded: Guarded) -> None:
    mesh, before = guarded.mesh, await guarded.shown()
    replies: list[str | None] = []
    rotated = asyncio.Event()

    async def ask() -> None:
        enough = None
        while enough is None or len(replies) < enough:
            replies.append((await mesh.ask()).reason)
            if enough is None and rotated.is_set():
                enough = len(replies) + 20

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(ask()) for _ in range(4)]
        await eventually(lambda: len(replies) > 20, "requests pass")
        for _ in range(3):
            guarded.authority.certify(NAME).write(guarded.folder, "server")
            after = await guarded.shown()
            assert after != before
            before = after
        rotated.set()
    assert all(client.done() for client in clients)
    assert set(replies) == {"policy"}


async def test_files_that_do_not_fit_change_nothing(guarded: Guarded) -> None:
    mesh, before = guarded.mesh, await guarded.shown()
    key = (guarded.folder / "server.key").read_bytes()
    (guarded.folder / "server.key").write_bytes(guarded.authority.certify(NAME).key)
    assert await guarded.shown() == before
    assert await mesh.counted("arch_ext_proc_certificate_reload_failures_total") == 1
    assert (await mesh.ask()).reason == "policy"
    (guarded.folder / "server.key").write_bytes(key)
    assert await guarded.shown() == before
    assert await mesh.counted("arch_ext_proc_certificate_reload_failures_total") == 1


async def test_envoy_takes_its_own_new_certificate(guarded: Guarded) -> None:
    """Connections that are there go on, so the server is started anew for Envoy to show another one."""
    mesh = guarded.mesh

    async def updates() -> int:
        return sum((await mesh.envoy_stats("ssl_context_update_by_sds")).values())

    async def shows(name: str) -> None:
        before = await updates()
        guarded.authority.certify(name).mount(guarded.folder / "mount")
        async with asyncio.timeout(LIMIT_S):
            while await updates() == before:
                await asyncio.sleep(0.05)

    await shows("spiffe://mesh/somebody")
    await mesh.stack.server.kill()
    await mesh.stack.restart_server()
    async with asyncio.timeout(LIMIT_S):
        while not await mesh.counted("arch_ext_proc_refused_callers_total", reason="name"):
            assert (await mesh.ask()).reason == "server_unavailable"
    await shows(ENVOY)
    await mesh.stack.server.kill()
    await mesh.stack.restart_server()
    await mesh.decided_again()


async def test_a_socket_has_the_mode_of_the_file_and_outlives_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "s"
    environ = {"ARCH_SOCKET": str(path)}
    async with running_mesh(CONFIGS / "socket.yaml", tmp_path, "openai", "coder", environ=environ) as mesh:
        await mesh.decided_again()
        assert path.stat().st_mode & 0o777 == 0o640
        await mesh.stack.server.kill()
        assert path.exists()
        await mesh.stack.restart_server()
        await mesh.decided_again()
        assert path.stat().st_mode & 0o777 == 0o640
