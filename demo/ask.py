"""Requests through Envoy with the official `openai` client, and what the client saw of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import openai

USUAL_MODEL = "gpt-4o-mini"
"""What an application writes that knows nothing of routing: no name of a provider in the file, hence
routed by what the user wants; a model that the default provider knows when no server is there."""


@dataclass(frozen=True)
class Question:
    """One request. `messages` is a conversation, or for `embeddings` and `responses` one user text."""

    messages: Sequence[Mapping[str, str]]
    model: str = USUAL_MODEL
    api: str = "chat"
    stream: bool = False
    session: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """One answer as the client saw it. `status` is 0 when there was none, `error` empty when it was good."""

    request_id: str
    status: int
    total_ms: float
    model: str = ""
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def reason(self) -> str:
        return self.headers.get("x-arch-reason", "")


def client(envoy_url: str) -> openai.AsyncOpenAI:
    """A client that hides nothing: no retries, and no proxy between it and Envoy."""
    return openai.AsyncOpenAI(
        base_url=f"{envoy_url}/v1",
        api_key="the-applications-own-key",
        max_retries=0,
        timeout=30,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    )


async def warm_up(stand_in_url: str) -> None:
    """Let the client build what it builds at its first answers, so that no figure holds it."""
    async with client(stand_in_url.removesuffix("/v1")) as to:
        for api in ("chat", "responses", "embeddings"):
            for stream in (False, True):
                question = Question(({"role": "user", "content": "hello"},), api=api, stream=stream)
                await ask(to, question, "warm-up")


async def ask(to: openai.AsyncOpenAI, question: Question, request_id: str) -> Answer:
    """Send one request and read its answer to the end. Errors: none, they are in the answer."""
    headers = {**question.headers, "x-request-id": request_id}
    create = _method(to, question.api)
    if question.session:
        headers["x-arch-session"] = question.session
    started = perf_counter()
    try:
        raw = await create(**_arguments(question), extra_headers=headers)
        model, text = await _read(raw, question)
    except Exception as error:  # noqa: BLE001 - whatever it is, a user would have seen it
        status = getattr(error, "status_code", 0)
        return Answer(request_id, status, _ms_since(started), error=f"{type(error).__name__}: {error}")
    return Answer(request_id, raw.status_code, _ms_since(started), model, text, raw.headers)


def _method(to: openai.AsyncOpenAI, api: str) -> Any:
    # The client imports each API at its first use: before the clock starts.
    if api == "embeddings":
        return to.embeddings.with_raw_response.create
    if api == "responses":
        return to.responses.with_raw_response.create
    return to.chat.completions.with_raw_response.create


def _arguments(question: Question) -> dict[str, Any]:
    if question.api == "chat":
        return {"model": question.model, "messages": list(question.messages), "stream": question.stream}
    return {"model": question.model, "input": question.messages[-1]["content"]}


async def _read(raw: Any, question: Question) -> tuple[str, str]:
    """The model that says it answered, and its text."""
    parsed = raw.parse()
    if question.api == "embeddings":
        return parsed.model, ""
    if question.api == "responses":
        return parsed.model, parsed.output_text
    if not question.stream:
        return parsed.model, parsed.choices[0].message.content
    model, pieces, is_finished = "", [], False
    async for chunk in parsed:
        model = chunk.model
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            is_finished = is_finished or choice.finish_reason is not None
    if not is_finished:
        raise EOFError("the stream ended before its answer did")
    return model, "".join(pieces)


def _ms_since(started: float) -> float:
    return (perf_counter() - started) * 1000
