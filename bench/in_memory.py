"""The servicer fed from memory: what this project's own code costs per request, without gRPC and Envoy.

python -m bench.in_memory pinned 5000        # CPU microseconds per request
python -m bench.in_memory pinned 5000 --profile
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from bench.bodies import PATH, SMALL_BYTES, body
from ext_proc.config.load import load
from ext_proc.core.types import Message, Policy, Scores
from ext_proc.router.ask import RouterAsker
from ext_proc.server import wire
from ext_proc.server.routing import Live
from ext_proc.server.servicer import Servicer
from ext_proc.telemetry import Telemetry, log

CONFIG = """
model_providers:
  - {model: bench/default, default: true, base_url: "http://127.0.0.1:1/v1", access_key: key}
  - {model: bench/other, base_url: "http://127.0.0.1:1/v1", access_key: key}
routing_preferences:
  - {name: code, description: writing code, models: [bench/other]}
  - name: writing
    description: stories and poems
    targets: [{model: bench/other, weight: 90}, {model: bench/default, weight: 10}]
    shadow: [{model: bench/default, percent: 10}]
affinity: {salt: a-salt-for-benchmarks-only}
"""

KINDS: dict[str, bytes] = {
    "pinned": body("x" * SMALL_BYTES, model="bench/other"),
    "cached": body("a question of code " * 20),
    "split and shadow": body("a poem " * 50),
    "pinned, 1 MiB": body("x" * (1 << 20), model="bench/other"),
}
"""What is asked, by its name."""

_HEADERS = {
    ":authority": "gateway.example.com",
    ":path": PATH,
    ":method": "POST",
    ":scheme": "http",
    "content-type": "application/json",
    "authorization": "Bearer client",
    "user-agent": "OpenAI/Python 1.0",
    "accept": "application/json",
    "x-forwarded-proto": "http",
    "x-request-id": "a3f8c7d2-8f1b-4a54-9a5e-1f6c0e2b7d10",
    "x-arch-cluster": "bench",
}
"""What Envoy tells of a client's request."""


class _Router:
    """Knows the policies by a word, in no time."""

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        pass

    async def forget(self, policies: tuple[Policy, ...]) -> None:
        pass

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        said = "writing" if "poem" in messages[-1].text else "code"
        return Scores(tuple(0.9 if policy.name == said else 0.05 for policy in policies), 0.05)

    async def close(self) -> None:
        pass


class Context:
    """What gRPC gives a handler: metadata, and messages as they come from the wire."""

    def __init__(self, messages: tuple[bytes, ...]) -> None:
        self._messages = iter(messages)
        self.answers: list[bytes] = []

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-arch-envoy-has", ""), ("user-agent", "envoy"))

    async def read(self) -> Any:
        data = next(self._messages, None)
        return grpc.aio.EOF if data is None else wire.deserialize(data)

    async def write(self, data: bytes) -> None:
        self.answers.append(data)


def messages(content: bytes) -> tuple[bytes, ...]:
    """What Envoy sends of a request with this body."""
    values = {**_HEADERS, "content-length": str(len(content))}
    named = [base_pb2.HeaderValue(key=key, raw_value=value.encode()) for key, value in values.items()]
    begins = pb.HttpHeaders(headers=base_pb2.HeaderMap(headers=named))
    whole = pb.HttpBody(body=content, end_of_stream=True)
    requests = (pb.ProcessingRequest(request_headers=begins), pb.ProcessingRequest(request_body=whole))
    return tuple(request.SerializeToString() for request in requests)


async def servicer() -> Servicer:
    """One as it serves, with a router that takes no time."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "arch_config.yaml"
        file.write_text(CONFIG)
        configuration = load(file, {}, lambda: b"").configuration
    asker = RouterAsker(_Router(), configuration.router)
    await asker.prepare(configuration.snapshot.policies)
    live = Live(configuration.snapshot, asker, configuration.envoy.body_limit_bytes)
    return Servicer(lambda: live, Telemetry())


async def serve(process: Callable[[Any, Any], Any], kind: str, requests: int) -> float:
    """Let it answer so many; the CPU seconds that took. Errors: AssertionError when one is not answered."""
    sent = messages(KINDS[kind])
    started = time.process_time()
    for _ in range(requests):
        context = Context(sent)
        await process(None, context)
        if len(context.answers) != len(sent):
            raise AssertionError(f"{len(context.answers)} answers")
    return time.process_time() - started


async def _main(arguments: argparse.Namespace) -> None:
    log.configure(as_json=False, level="ERROR")
    process = (await servicer()).process
    await serve(process, arguments.kind, 20)
    if arguments.profile:
        with cProfile.Profile() as profile:
            await serve(process, arguments.kind, arguments.requests)
        profile.print_stats("tottime")
        return
    spent = min([await serve(process, arguments.kind, arguments.requests) for _ in range(arguments.repeat)])
    if arguments.requests:
        print(f"{arguments.kind}: {1e6 * spent / arguments.requests:.1f} µs of CPU per request")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.in_memory", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("requests", type=int)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    asyncio.run(_main(parser.parse_args()))
