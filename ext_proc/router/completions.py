"""What an OpenAI-compatible server is asked, and what its answer says. Pure.

Sources: the OpenAI API reference (chat completions, `logprobs`, `response_format`), vLLM's and
llama.cpp's documentation of their own fields.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from ext_proc.core import answer, prompt
from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.prompt import OTHER, Variant
from ext_proc.core.settings import EndpointSettings, Guided
from ext_proc.core.types import Message, Policy, Scores

MAX_ANSWER_TOKENS = 64
"""An answer is a name in a few words of JSON; a name has at most 128 characters."""

_BYTES_PER_TOKEN = 3
"""Fewer than any usual text has, because the server's tokenizer is not known here."""


def request_body(
    settings: EndpointSettings, messages: tuple[Message, ...], policies: tuple[Policy, ...]
) -> bytes | None:
    """The body of one request; None without any user's text.

    Every sampling parameter is explicit: a server may have defaults of the model's own, such as a
    repetition penalty, which would change the route.
    """
    turns = prompt.select_turns(messages, _estimated_tokens, settings.budget_tokens)
    if not turns:
        return None
    asked = prompt.build(policies, turns, settings.prompt)
    fields: dict[str, Any] = {
        "model": settings.model,
        "messages": [{"role": "user", "content": asked.text}],
        "temperature": 0,
        "top_p": 1,
        "top_k": -1,
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "max_tokens": MAX_ANSWER_TOKENS,
        "stream": False,
        "logprobs": True,
        **_GUIDES[settings.guided](policies, settings.prompt),
    }
    return orjson.dumps(fields)


def read_answer(body: bytes, policies: tuple[Policy, ...]) -> Scores:
    """The route that an answer names, with its probability if the server gave log-probabilities.

    Without them the route has all of it: the model said nothing of the others.
    Errors: RouterError ROUTER_GARBLED.
    """
    try:
        choice = orjson.loads(body)["choices"][0]
        text = choice["message"]["content"]
        found = answer.read(text, policies)
    except (answer.Garbled, ValueError, LookupError, TypeError) as error:
        raise RouterError(Reason.ROUTER_GARBLED, "the routing model's answer names no route") from error
    confidence = _confidence(choice.get("logprobs"), text, found.start, found.end)
    return _scores(found.name, 1.0 if confidence is None else confidence, policies)


def _scores(name: str | None, confidence: float, policies: tuple[Policy, ...]) -> Scores:
    """What the route does not have is "none of them"'s; of that one, it is shared by all policies."""
    chosen = next((index for index, policy in enumerate(policies) if policy.name == name), len(policies))
    if chosen == len(policies):
        share = (1.0 - confidence) / len(policies)
        return Scores((share,) * len(policies), confidence, chosen)
    per_policy = tuple(confidence if index == chosen else 0.0 for index in range(len(policies)))
    return Scores(per_policy, 1.0 - confidence, chosen)


def _confidence(logprobs: object, text: str, start: int, end: int) -> float | None:
    """The probability of the tokens that overlap `text[start:end]`. None if they do not spell the text."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list):
        return None
    total, at = 0.0, 0
    for entry in tokens:
        token, log = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        if not isinstance(token, str) or not isinstance(log, int | float) or math.isnan(log):
            return None
        if not text.startswith(token, at):
            # After the text come tokens that are not shown, such as the end of the turn.
            return math.exp(min(total, 0.0)) if at >= end else None
        if at < end and at + len(token) > start:
            total += log
        at += len(token)
    return math.exp(min(total, 0.0)) if at >= end else None


def _estimated_tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def _answers(policies: tuple[Policy, ...], variant: Variant) -> list[str]:
    names: Sequence[str | None] = [*(policy.name for policy in policies), None]
    return [answer.written(name, variant) for name in names]


def _no_guide(_policies: tuple[Policy, ...], _variant: Variant) -> dict[str, Any]:
    return {}


def _json_schema(policies: tuple[Policy, ...], variant: Variant) -> dict[str, Any]:
    names = [policy.name for policy in policies]
    route: dict[str, Any] = {"type": "string", "enum": [*names, OTHER]}
    if variant is Variant.PLANO_ORCHESTRATOR:
        route = {"type": "array", "items": {"type": "string", "enum": names}}
    schema = {
        "type": "object",
        "properties": {"route": route},
        "required": ["route"],
        "additionalProperties": False,
    }
    guide = {"type": "json_schema", "json_schema": {"name": "route", "schema": schema, "strict": True}}
    return {"response_format": guide}


def _structured_outputs(policies: tuple[Policy, ...], variant: Variant) -> dict[str, Any]:
    return {"structured_outputs": {"choice": _answers(policies, variant)}}


def _guided_choice(policies: tuple[Policy, ...], variant: Variant) -> dict[str, Any]:
    return {"guided_choice": _answers(policies, variant)}


def _grammar(policies: tuple[Policy, ...], variant: Variant) -> dict[str, Any]:
    # GBNF writes literals as JSON writes strings.
    literals = " | ".join(json.dumps(text, ensure_ascii=False) for text in _answers(policies, variant))
    return {"grammar": f"root ::= {literals}"}


_GUIDES: dict[Guided, Callable[[tuple[Policy, ...], Variant], dict[str, Any]]] = {
    Guided.OFF: _no_guide,
    Guided.JSON_SCHEMA: _json_schema,
    Guided.STRUCTURED_OUTPUTS: _structured_outputs,
    Guided.GUIDED_CHOICE: _guided_choice,
    Guided.GRAMMAR: _grammar,
}
