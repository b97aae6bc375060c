"""Answers that end with trailers, over HTTP/2, are whole answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded

from tests.support.answers import CHAT
from tests.support.certificates import Authority
from tests.support.mesh import CONFIGS, TRAVELLING, running_mesh

POLICY = "travel planning"
BODY = orjson.dumps(CHAT)


@asynccontextmanager
async def answering_with_trailers(folder: Path) -> AsyncIterator[int]:
    """A provider with TLS and HTTP/2, each of whose answers ends with trailers; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "provider.crt", folder / "provider.key")
    context.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    h2 = H2Connection(H2Configuration(client_side=False))
    h2.initiate_connection()
    writer.write(h2.data_to_send())
    try:
        while data := await reader.read(1 << 16):
            for event in h2.receive_data(data):
                if isinstance(event, DataReceived):
                    h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if isinstance(event, StreamEnded):
                    h2.send_headers(
                        event.stream_id, [(":status", "200"), ("content-type", "application/json")]
                    )
                    h2.send_data(event.stream_id, BODY)
                    h2.send_headers(event.stream_id, [("server-timing", "db;dur=53")], end_stream=True)
            writer.write(h2.data_to_send())
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.transport.abort()


async def test_an_answer_with_trailers_is_whole_compared_and_no_error(tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    authority.certify("localhost").write(tmp_path, "provider")
    async with answering_with_trailers(tmp_path) as port:
        url = f"https://localhost:{port}/v1"
        environ = {"OPENAI_UPSTREAM": url, "NEXT_UPSTREAM": url}
        files = (CONFIGS / "observe.yaml", tmp_path)
        async with running_mesh(*files, environ=environ, ca_file=str(tmp_path / "ca.crt")) as mesh:
            reply = await mesh.ask(TRAVELLING)
            assert (reply.status, reply.policy, reply.body) == (200, POLICY, BODY)

            async def seen() -> list[float]:
                names = ("answers_total", "comparisons_total", "answer_errors_total", "answers_cut_total")
                return [await mesh.counted(f"arch_ext_proc_{name}", policy=POLICY) for name in names]

            async with asyncio.timeout(60):
                while (await seen())[:2] != [3, 2]:
                    await asyncio.sleep(0.05)
            assert await seen() == [3, 2, 0, 0]
            assert await mesh.counted("arch_ext_proc_answer_tokens_total", direction="out") == 3 * 7
