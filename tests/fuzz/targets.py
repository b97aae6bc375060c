"""What strangers' bytes go through, as functions of bytes that fail when a promise is broken.

Each is run with the files under `corpus/` and with what atheris makes of them (`run.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ext_proc.config.load import Loaded, load_text
from ext_proc.core import answer, head, inline, prompt, rewrite, spans
from ext_proc.core.errors import ConfigError, Reason, RouterError
from ext_proc.core.parse import load_object, parse_call
from ext_proc.core.prompt import Variant
from ext_proc.core.splicing import ModelSplice
from ext_proc.core.types import WHOLE_PER_10K, Dialect, LlmCall, Message, Policy
from ext_proc.core.verdict import verdict_of
from ext_proc.router import completions

POLICIES = (Policy("code", "writing code"), Policy("größe", "sizes"), Policy("a b", "other"))
DIALECTS, VARIANTS = tuple(Dialect), tuple(Variant)
BUDGET = 64


class Pairs(list[tuple[str, Any]]):
    """An object's members in order, duplicates kept."""


def document(body: bytes) -> Any:
    """All that a body says; numbers as their digits."""
    return json.loads(body, object_pairs_hook=Pairs, parse_int=str, parse_float=str, parse_constant=str)


def body_parsing(data: bytes) -> None:
    """A body, whole or only its head, is a call or a reason, whatever it is."""
    dialect, body = DIALECTS[data[0] % len(DIALECTS)] if data else DIALECTS[0], data[1:]
    for call in (parse_call(dialect, body), head.read(dialect, body)):
        assert isinstance(call, LlmCall | Reason)
        if isinstance(call, LlmCall):
            assert all(isinstance(message.text, str) for message in call.messages)
            assert call.dialect is dialect
    closed = head.close(body)
    if closed is not None and isinstance(load_object(body), dict):
        json.loads(closed)


def body_splicing(data: bytes) -> None:
    """The model changes, inline policies go, every other byte stays; in pieces as in one."""
    at, body = (data[0] * 3 if data else 0), data[1:]
    splice = ModelSplice("the-model")
    spliced = splice.feed(body[:at]) + splice.feed(body[at:])
    assert spliced == ModelSplice("the-model").feed(body)
    if not isinstance(load_object(body), dict):
        return
    said = document(body)
    changed = rewrite.set_model(body, "the-model")
    expected = Pairs((key, "the-model" if key == "model" else value) for key, value in said)
    if any(key == "model" for key, _ in said):
        assert document(changed) == expected
        assert spliced == changed
    else:
        assert document(changed) == Pairs([("model", "the-model"), *said])
        assert document(spliced) == Pairs([*said, ("model", "the-model")])
    kept = document(spans.apply(body, inline.removals(body)))
    assert [key for key, _ in kept] == [key for key, _ in said if key != "routing_preferences"]


def prompt_building(data: bytes) -> None:
    """Any conversation becomes a prompt within its budget that ends as the model was taught."""
    variant = VARIANTS[data[0] % len(VARIANTS)] if data else VARIANTS[0]
    lines = data[1:].decode("utf-8", "replace").split("\n")
    roles = ("system", "user", "assistant", "tool")
    messages = tuple(Message(roles[len(line) % 4], line) for line in lines)
    turns = prompt.select_turns(messages, len, BUDGET)
    assert sum(len(turn.text) for turn in turns) <= BUDGET
    assert not turns or turns[-1].role == "user"
    policies = tuple(Policy(line[:20] or "p", line) for line in lines[:4])
    built = prompt.build(policies, turns, variant)
    assert built.prefix + built.suffix
    assert built == prompt.build(policies, turns, variant)


def verdict_parsing(data: bytes) -> None:
    """Whatever a model answers names a policy, none of them, or is garbled."""
    text = data.decode("utf-8", "replace")
    try:
        found = answer.read(text, POLICIES)
    except answer.Garbled:
        pass
    else:
        assert found.name in (None, *(policy.name for policy in POLICIES))
        assert 0 <= found.start <= found.end <= len(text)
    wrapped = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    for body in (data, wrapped):
        try:
            scores = completions.read_answer(body, POLICIES)
        except RouterError as error:
            reason = error.reason
        else:
            verdict = verdict_of(scores, POLICIES)
            assert verdict.failure is None or verdict.policy is None
            continue
        assert reason is Reason.ROUTER_GARBLED


def config_loading(data: bytes) -> None:
    """A file is a configuration whose shares add up, or problems with their places."""
    text = data.decode("utf-8", "replace")
    try:
        loaded = load_text(text, "f", {"A": "1", "KEY": "sk-0123456789"}, lambda: b"salt")
    except ConfigError as error:
        problems = error.problems
    else:
        _check_shares(loaded)
        return
    assert problems
    assert all(problem.line >= 1 and problem.column >= 1 for problem in problems)


def _check_shares(loaded: Loaded) -> None:
    for route in loaded.configuration.snapshot.routes.values():
        assert sum(arm.weight_per_10k for arm in route.arms) == WHOLE_PER_10K


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (body_parsing, body_splicing, prompt_building, verdict_parsing, config_loading)
}
