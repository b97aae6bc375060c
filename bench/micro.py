"""What needs no Envoy: a decision among few and many policies, and the wire by two protobuf libraries."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from typing import Any

from envoy.service.ext_proc.v3 import external_processor_pb2 as upb
from envoy_data_plane.envoy.config.core.v3 import HeaderValue, HeaderValueOption
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    ProcessingRequest,
    ProcessingResponse,
)

from bench.in_memory import KINDS, messages
from ext_proc.core.types import Message, Policy
from ext_proc.router.embedded import EmbeddedRouter

POLICIES = (5, 50, 200, 1000)
QUICK_POLICIES = (5, 50)
ROUNDS = 40
_TEXT = (
    "please explain how this function sorts the list of numbers and why it is slow for long inputs, number "
)


def by_policies(counts: Sequence[int] = POLICIES) -> dict[str, float]:
    """Milliseconds of the embedded router's decision, by how many policies there are. Medians, in turn."""
    return asyncio.run(_by_policies(counts))


async def _by_policies(counts: Sequence[int]) -> dict[str, float]:
    router = EmbeddedRouter()
    sets = {
        count: tuple(Policy(f"topic {at}", f"questions about subject {at}") for at in range(count))
        for count in counts
    }
    for policies in sets.values():
        await router.prepare(policies)
    times: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(-5, ROUNDS):
        for count, policies in sets.items():
            asked = (Message("user", _TEXT + str(number)),)
            started = perf_counter()
            await router.score(asked, policies)
            if number >= 0:
                times[count].append((perf_counter() - started) * 1000)
    await router.close()
    return {str(count): round(statistics.median(taken), 3) for count, taken in times.items()}


def by_library() -> dict[str, dict[str, float]]:
    """Microseconds of CPU to read Envoy's messages and to write the answer, with either library."""
    begins, body = messages(KINDS["pinned"])
    _, large = messages(KINDS["pinned, 1 MiB"])
    changed = {"x-arch-model": b"bench/other", "x-arch-cluster": b"bench", ":path": b"/v1/chat/completions"}
    content = KINDS["pinned"]

    def write_upb() -> bytes:
        answer = upb.ProcessingResponse()
        common = answer.request_body.response
        for key, value in changed.items():
            common.header_mutation.set_headers.add(header={"key": key, "raw_value": value})
        common.body_mutation.body = content
        data: bytes = answer.SerializeToString()
        return data

    def write_betterproto2() -> bytes:
        headers = [
            HeaderValueOption(header=HeaderValue(key=key, raw_value=value)) for key, value in changed.items()
        ]
        mutation = HeaderMutation(set_headers=headers)
        common = CommonResponse(header_mutation=mutation, body_mutation=BodyMutation(body=content))
        return bytes(ProcessingResponse(request_body=BodyResponse(response=common)))

    jobs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "read the headers": (
            lambda: upb.ProcessingRequest.FromString(begins),
            lambda: ProcessingRequest.parse(begins),
        ),
        "read a body of 0.7 KB": (
            lambda: upb.ProcessingRequest.FromString(body),
            lambda: ProcessingRequest.parse(body),
        ),
        "read a body of 1 MiB": (
            lambda: upb.ProcessingRequest.FromString(large),
            lambda: ProcessingRequest.parse(large),
        ),
        "write an answer": (write_upb, write_betterproto2),
    }
    return {name: {"upb": _us(one), "betterproto2": _us(other)} for name, (one, other) in jobs.items()}


def _us(job: Callable[[], Any], times: int = 200, rounds: int = 5) -> float:
    """The least of the rounds."""
    found = []
    for _ in range(rounds):
        started = process_time()
        for _ in range(times):
            job()
        found.append((process_time() - started) / times * 1e6)
    return round(min(found), 1)
