"""Policies and a conversation to the text that a routing language model was trained on.

Published ways of writing the prompt are variants here, because a fine-tune answers best to what it has
seen. For Arch-Router: `archgw` (the gateway of the model's makers: compact JSON) and `model-card` (the
Python example beside the weights: JSON with spaces, blank lines around both blocks). For its successor
family: `plano-orchestrator` (one JSON route a line, an indented conversation, a list for an answer).

The text comes in two halves. The first, up to and with `<conversation>`, depends on the policies only:
an engine keeps its KV cache for as long as a configuration lives. The policies therefore keep the
file's order, always.

Nothing that a client writes can end a block or the message itself: see `_neutral`.

Sources: the model card of katanemo/Arch-Router-1.5B and arXiv 2506.16655; for Plano-Orchestrator the
gateway that serves it (katanemo/plano, `orchestrator_model_v1.rs` and the prompt that its test asserts,
the doubled braces included); docs/routers.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from ext_proc.core.types import Message, Policy

OTHER = "other"
"""What the model answers when no route fits. No policy may have this name."""

BUDGET_TOKENS = 2048
"""How much of a conversation is shown, newest first. Source: archgw's `MAX_TOKEN_LEN`."""

HEAD_SHARE = 0.6
"""Of a newest message that alone is too long: this share from its beginning, the rest from its end."""

ELLIPSIS = "…"

_INSTRUCTION = """
You are a helpful assistant designed to find the best suited route.
You are provided with route description within <routes></routes> XML tags:
<routes>
{routes}
</routes>

<conversation>
"""

_TASK = """
</conversation>

Your task is to decide which route is best suit with user intent on the conversation in \
<conversation></conversation> XML tags.  Follow the instruction:
1. If the latest intent from user is irrelevant or user intent is full filled, response with other route \
{"route": "other"}.
2. You must analyze the route descriptions and find the best match route for user latest intent.
3. You only response the name of the route that best matches the user's request, use the exact name in the \
<routes></routes>.

Based on your analysis, provide your response in the following JSON formats if you decide to match any route:
{"route": "route_name"}
"""


_PLANO_INSTRUCTION = """
You are a helpful assistant that selects the most suitable routes based on user intent.
You are provided with a list of available routes enclosed within <routes></routes> XML tags:
<routes>
{routes}
</routes>

You are also given the conversation context enclosed within <conversation></conversation> XML tags:
<conversation>
"""

_PLANO_TASK = """
</conversation>

## Instructions
1. Analyze the latest user intent from the conversation.
2. Compare it against the available routes to find which routes can help fulfill the request.
3. Respond only with the exact route names from <routes>.
4. If no routes can help or the intent is already fulfilled, return an empty list.

## Response Format
Return your answer strictly in JSON as follows:
{{"route": ["route_name_1", "route_name_2", "..."]}}
If no routes are needed, return an empty list for `route`.
"""


class Variant(StrEnum):
    """Whose way of writing the prompt."""

    ARCHGW = "archgw"
    MODEL_CARD = "model-card"
    PLANO_ORCHESTRATOR = "plano-orchestrator"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One user message for the model's chat template: `prefix` is the same for all of a configuration."""

    prefix: str
    suffix: str

    @property
    def text(self) -> str:
        return self.prefix + self.suffix


def prefix_of(policies: tuple[Policy, ...], variant: Variant = Variant.ARCHGW) -> str:
    """The constant half: instruction and routes, up to where the conversation begins."""
    routes = [{"name": policy.name, "description": policy.description} for policy in policies]
    if variant is Variant.PLANO_ORCHESTRATOR:
        # Its gateway writes a function's empty parameters into every route.
        nothing = {"type": "object", "properties": {}, "required": []}
        lines = "\n".join(_json({**route, "parameters": nothing}, variant) for route in routes)
        return _PLANO_INSTRUCTION.replace("{routes}", lines)
    margin = _margin(variant)
    return _INSTRUCTION.replace("{routes}", margin + _json(routes, variant) + margin) + margin


def suffix_of(turns: tuple[Message, ...], variant: Variant = Variant.ARCHGW) -> str:
    """The half of one request: the conversation and the task."""
    conversation = [{"role": turn.role, "content": turn.text} for turn in turns]
    if variant is Variant.PLANO_ORCHESTRATOR:
        return _json(conversation, variant, indent=4) + _PLANO_TASK
    return _json(conversation, variant) + _margin(variant) + _TASK


def quoted(text: str, variant: Variant = Variant.ARCHGW) -> str:
    """A message's text as it stands in the prompt: what a count of its tokens should count."""
    return _json(text, variant)


def build(
    policies: tuple[Policy, ...], turns: tuple[Message, ...], variant: Variant = Variant.ARCHGW
) -> Prompt:
    """The whole prompt. `turns` come from `select_turns`."""
    return Prompt(prefix_of(policies, variant), suffix_of(turns, variant))


def select_turns(
    messages: tuple[Message, ...], count_tokens: Callable[[str], int], budget: int = BUDGET_TOKENS
) -> tuple[Message, ...]:
    """The user's and the assistant's latest turns that fit into the budget, in order.

    The newest user message is always there; alone too long, it is cut to its head and its tail. What
    the assistant said after it does not count: the question is what the user wants.

    Units: `budget` in the tokens that `count_tokens` counts. Errors: none; no user turn gives ().
    """
    spoken = [m for m in messages if m.role in ("user", "assistant") and m.text.strip()]
    while spoken and spoken[-1].role != "user":
        spoken.pop()
    if not spoken:
        return ()
    newest = _shortened(spoken[-1].text, count_tokens, budget)
    chosen = [Message("user", newest)]
    left = budget - count_tokens(newest)
    for message in reversed(spoken[:-1]):
        # A token has at least one byte: what is longer than that need not be counted.
        if len(message.text) > left * _MAX_CHARS_PER_TOKEN:
            break
        left -= count_tokens(message.text)
        if left < 0:
            break
        chosen.append(message)
    return tuple(reversed(chosen))


_MAX_CHARS_PER_TOKEN = 128
"""The longest entries of today's vocabularies are runs of spaces about this long."""


def _shortened(text: str, count_tokens: Callable[[str], int], budget: int) -> str:
    """Head and tail of a text that is too long, found by halving; a text that fits, as it is."""
    limit = budget * _MAX_CHARS_PER_TOKEN
    if len(text) <= limit and count_tokens(text) <= budget:
        return text
    low, high = 0, min(len(text), limit)
    while low < high:
        kept = (low + high + 1) // 2
        if count_tokens(_ends(text, kept)) <= budget:
            low = kept
        else:
            high = kept - 1
    return _ends(text, low)


def _ends(text: str, kept: int) -> str:
    head = round(kept * HEAD_SHARE)
    tail = kept - head
    return text[:head] + ELLIPSIS + (text[-tail:] if tail else "")


def _margin(variant: Variant) -> str:
    return "\n" if variant is Variant.MODEL_CARD else ""


def _json(value: object, variant: Variant, indent: int | None = None) -> str:
    if variant is Variant.MODEL_CARD:
        return _neutral(json.dumps(value))
    separators = (",", ":") if variant is Variant.ARCHGW else None
    text = json.dumps(value, ensure_ascii=False, separators=separators, indent=indent)
    # Half a surrogate pair is no text: no tokenizer takes it and no request body could hold it.
    return _neutral(text.encode("utf-8", "replace").decode())


_SPECIAL_TOKEN = re.compile(r"<\|(?=[^\s<>|]{1,64}\|>)")
"""What chat templates mark turns with, `<|im_end|>` for one. Tokenizers read it in any text."""


def _neutral(text: str) -> str:
    """JSON that means the same and closes nothing: no `</tag>` and no `<|token|>` is left in it."""
    return _SPECIAL_TOKEN.sub(r"<\\u007c", text).replace("</", "<\\/")
