"""Stand-in models: an HTTP server that speaks the OpenAI and Anthropic APIs and names itself.

Every answer is valid for the official clients, streamed or not. What each request looked like on
arrival is kept in `seen`, so that a test can assert on what a provider would have got. `behave` makes
it slow, failing or breaking off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

MAX_BODY_BYTES = 64 << 20
MAX_SEEN = 50_000
_USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes
    model: str | None

    @property
    def sha256(self) -> str:
        return sha256(self.body).hexdigest()


@dataclass
class Behaviour:
    """How the next requests are answered.

    An answer waits for `until` before it begins. `chunk_delay_s` is the pause before each streamed piece;
    after `reset_after` pieces the connection breaks off. A stream waits for `hold` after its first piece.
    `text` is what is said, `compress` in gzip.
    Every `fail_every`th request gets a 500. `tokens` is how many the usage says were written, in an answer
    in the OpenAI chat dialect that is not streamed. `headers` are on every answer.
    """

    status: int = 200
    delay_s: float = 0.0
    until: asyncio.Event | None = None
    chunk_delay_s: float = 0.0
    reset: bool = False
    reset_after: int | None = None
    hold: asyncio.Event | None = None
    text: str | None = None
    compress: bool = False
    fail_every: int | None = None
    tokens: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class StandIn:
    """One stand-in model server on a loopback port."""

    name: str
    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=MAX_SEEN))
    behave: Behaviour = field(default_factory=Behaviour)
    keep_bodies: bool = True
    port: int = 0
    handled: int = 0

    @asynccontextmanager
    async def running(self, port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[StandIn]:
        """Serve on loopback unless told otherwise, on a free port unless one is given."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.router.add_route("*", "/{path:.*}", self._handle)
        application.on_response_prepare.append(self._add_headers)
        # Bodies are kept as they came, compressed ones too.
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5, auto_decompress=False)
        await runner.setup()
        await web.TCPSite(runner, host, port, backlog=1024).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self.behave.headers)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fields = _fields(body)
        model = fields.get("model")
        kept = body if self.keep_bodies else b""
        self.seen.append(Seen(request.method, request.raw_path, request.headers.copy(), kept, model))
        if self.behave.until:
            await self.behave.until.wait()
        if self.behave.delay_s:
            await asyncio.sleep(self.behave.delay_s)
        if self.behave.reset and request.transport:
            request.transport.abort()
        self.handled += 1
        status = self.behave.status
        if self.behave.fail_every and self.handled % self.behave.fail_every == 0:
            status = 500
        if status != 200:
            return web.json_response(
                {"error": {"message": f"{self.name} was told to fail", "type": "stand_in", "code": None}},
                status=status,
            )
        path = request.path
        for suffix, answer in _ANSWERS.items():
            if path.endswith(suffix):
                text = self.behave.text or f"{model} at {self.name} here"
                whole, events = answer(str(model), text, fields)
                if self.behave.tokens is not None:
                    whole = {**whole, "usage": {**_USAGE, "completion_tokens": self.behave.tokens}}
                if fields.get("stream") is True and events:
                    return await self._stream(request, events)
                response = web.json_response(whole)
                if self.behave.compress:
                    response.enable_compression(web.ContentCoding.gzip)
                return response
        return web.json_response({"server": self.name, "method": request.method, "path": path})

    async def _stream(self, request: web.Request, events: list[tuple[str | None, Any]]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number, (name, data) in enumerate(events):
            if number == self.behave.reset_after and request.transport:
                request.transport.abort()
            if number == 1 and self.behave.hold is not None:
                await self.behave.hold.wait()
            if self.behave.chunk_delay_s:
                await asyncio.sleep(self.behave.chunk_delay_s)
            text = data if isinstance(data, str) else json.dumps(data)
            event = f"event: {name}\n" if name else ""
            await response.write(f"{event}data: {text}\n\n".encode())
        await response.write_eof()
        return response


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


Answer = tuple[dict[str, Any], list[tuple[str | None, Any]]]


def _chat_completion(model: str, text: str, fields: dict[str, Any]) -> Answer:
    head = {"id": "chatcmpl-stand-in", "created": 0, "model": model}
    whole = {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": _USAGE,
    }

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return {**head, "object": "chat.completion.chunk", "choices": choices}

    pieces: list[tuple[str | None, Any]] = [(None, chunk({"role": "assistant", "content": ""}))]
    pieces += [(None, chunk({"content": word + " "})) for word in text.split()]
    pieces.append((None, chunk({}, "stop")))
    if (fields.get("stream_options") or {}).get("include_usage"):
        pieces.append((None, {**head, "object": "chat.completion.chunk", "choices": [], "usage": _USAGE}))
    pieces.append((None, "[DONE]"))
    return whole, pieces


def _completion(model: str, text: str, _: dict[str, Any]) -> Answer:
    whole = {
        "id": "cmpl-stand-in",
        "object": "text_completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}],
        "usage": _USAGE,
    }
    return whole, [(None, whole), (None, "[DONE]")]


def _embedding(model: str, _text: str, _: dict[str, Any]) -> Answer:
    return {
        "object": "list",
        "model": model,
        "data": [{"object": "embedding", "index": 0, "embedding": [0.0, 1.0]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }, []


def _response(model: str, text: str, _: dict[str, Any]) -> Answer:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    message = {
        "type": "message",
        "id": "msg-1",
        "role": "assistant",
        "status": "completed",
        "content": content,
    }
    whole = {
        "id": "resp-stand-in",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "model": model,
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 14,
        },
    }
    begun = {**whole, "status": "in_progress", "output": []}
    place = {"item_id": "msg-1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**message, "content": []}},
        {
            "type": "response.content_part.added",
            **place,
            "part": {"type": "output_text", "text": "", "annotations": []},
        },
        *(
            {"type": "response.output_text.delta", **place, "delta": word + " ", "logprobs": []}
            for word in text.split()
        ),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": content[0]},
        {"type": "response.output_item.done", "output_index": 0, "item": message},
        {"type": "response.completed", "response": whole},
    ]
    return whole, [
        (event["type"], {**event, "sequence_number": number}) for number, event in enumerate(events)
    ]


def _message(model: str, text: str, _: dict[str, Any]) -> Answer:
    whole = {
        "id": "msg_stand_in",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 5},
    }
    begun = {**whole, "content": [], "stop_reason": None}
    events: list[tuple[str | None, Any]] = [
        ("message_start", {"type": "message_start", "message": begun}),
        (
            "content_block_start",
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        ),
        *(
            (
                "content_block_delta",
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": word + " "},
                },
            )
            for word in text.split()
        ),
        ("content_block_stop", {"type": "content_block_stop", "index": 0}),
        (
            "message_delta",
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 5},
            },
        ),
        ("message_stop", {"type": "message_stop"}),
    ]
    return whole, events


_ANSWERS: dict[str, Callable[[str, str, dict[str, Any]], Answer]] = {
    "/chat/completions": _chat_completion,
    "/completions": _completion,
    "/embeddings": _embedding,
    "/responses": _response,
    "/messages": _message,
}


async def _serve(name: str, host: str, port: int) -> None:
    # As the first process of a container it gets no signal's default. An exception out of a signal's handler
    # could be raised in any task, and be lost there.
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with StandIn(name, keep_bodies=False).running(port, host):
        await ended.wait()


def main() -> None:
    """One stand-in by itself, until it is ended: `python -m demo.stand_in NAME`."""
    parser = argparse.ArgumentParser(prog="python -m demo.stand_in", description=main.__doc__)
    parser.add_argument("name", help="what it calls itself in its answers")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.name, arguments.host, arguments.port))


if __name__ == "__main__":
    main()
