"""A server's parts without a socket, and streams that a test leads through them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from ext_proc.app.reloading import Reloader
from ext_proc.app.serving import Serving
from ext_proc.config.load import load_text
from ext_proc.config.source import Source
from ext_proc.core.settings import Configuration
from ext_proc.telemetry.reloads import ReloadTelemetry
from tests.support.mesh import CODING, chat

SALT = "a salt that is long enough"


def a_file(
    *,
    description: str = CODING,
    weights: tuple[int, int] = (100, 0),
    key: str = "sk-one",
    routing: str = "{router: {type: embedded, threshold: 0}, deadline: 20s}",
    rest: str = "",
) -> str:
    return f"""
model_providers:
  - {{model: openai/a, default: true, base_url: "http://a:1/v1", access_key: {key}}}
  - {{model: vllm/b, base_url: "http://b:1/v1"}}
  - {{model: vllm/c, base_url: "http://c:1/v1"}}
routing_preferences:
  - name: code
    description: {description}
    targets: [{{model: vllm/b, weight: {weights[0]}}}, {{model: vllm/c, weight: {weights[1]}}}]
routing: {routing}
affinity: {{salt: {SALT}}}
envoy: {{message_timeout: 30s}}
{rest}
"""


def configuration(text: str) -> Configuration:
    return load_text(text, "f.yaml", {}, lambda: b"").configuration


@asynccontextmanager
async def serving(text: str) -> AsyncIterator[Serving]:
    found = Serving(configuration(text))
    await found.begin()
    try:
        yield found
    finally:
        await found.close()


class Stream:
    """One stream of Envoy's, which sends its messages when it is told to."""

    def __init__(self, serving: Serving, **metadata: str) -> None:
        self._metadata = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(serving.servicer().process(None, self))

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def read(self) -> Any:
        return await self._messages.get()

    async def write(self, data: bytes) -> None:
        self._answers.put_nowait(pb.ProcessingResponse.FromString(data))

    async def begin(self, **more: str) -> None:
        message = pb.ProcessingRequest()
        for key, value in (
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            ("content-type", "application/json"),
            *((name.replace("_", "-"), value) for name, value in more.items()),
        ):
            message.request_headers.headers.headers.add(key=key, raw_value=value.encode())
        self._messages.put_nowait(message)
        await self._answers.get()

    async def decided(self, text: str = CODING, **fields: Any) -> dict[str, str]:
        """Send the body: the headers that the server sets."""
        mutation = (await self.answered(text, **fields)).request_body.response.header_mutation
        return {option.header.key: option.header.raw_value.decode() for option in mutation.set_headers}

    async def answered(self, text: str = CODING, **fields: Any) -> Any:
        """Send the body: all that the server answers."""
        message = pb.ProcessingRequest()
        message.request_body.body = json.dumps(chat(text, **fields)).encode()
        message.request_body.end_of_stream = True
        self._messages.put_nowait(message)
        return await self._answers.get()

    async def ended(self) -> None:
        """Wait until the server ends it."""
        await self._task

    async def end(self) -> None:
        self._messages.put_nowait(grpc.aio.EOF)
        await self._task


async def ask(serving: Serving, text: str = CODING, **fields: Any) -> dict[str, str]:
    stream = Stream(serving)
    await stream.begin()
    decided = await stream.decided(text, **fields)
    await stream.end()
    return decided


def a_reloader(server: Serving, file: Path) -> Reloader:
    source = Source(file, {}, lambda: b"salt")
    told = ReloadTelemetry(server.telemetry.registry, server.routers_held)
    return Reloader(server, source, source.load(), told)
