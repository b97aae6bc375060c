"""What an OpenAI-compatible server is asked, and how its answers are read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.prompt import Variant
from ext_proc.core.settings import EndpointSettings, Guided
from ext_proc.core.types import Message, Policy, Scores
from ext_proc.router.completions import read_answer, request_body

POLICIES = (Policy("code review", "reviewing code"), Policy('the "odd" one', "quotes"))
SETTINGS = EndpointSettings(
    url="http://127.0.0.1:9/v1/chat/completions",
    model="Arch-Router",
    credential=None,
    prompt=Variant.ARCHGW,
    budget_tokens=2048,
    guided=Guided.OFF,
    max_concurrent=4,
    breaker_failures=3,
    breaker_pause_s=1.0,
    fallback=None,
)
MESSAGES = (Message("user", "look at my code"),)


def body_with(guided: Guided = Guided.OFF, variant: Variant = Variant.ARCHGW) -> dict[str, Any]:
    body = request_body(replace(SETTINGS, guided=guided, prompt=variant), MESSAGES, POLICIES)
    assert body is not None
    fields: dict[str, Any] = json.loads(body)
    return fields


def an_answer(text: object, tokens: list[tuple[str, float]] | None = None) -> bytes:
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
    if tokens is not None:
        choice["logprobs"] = {"content": [{"token": token, "logprob": log} for token, log in tokens]}
    return json.dumps({"choices": [choice]}).encode()


def test_every_sampling_parameter_is_explicit() -> None:
    fields = body_with()
    assert (fields["model"], fields["stream"], fields["logprobs"]) == ("Arch-Router", False, True)
    assert (fields["temperature"], fields["top_p"], fields["top_k"]) == (0, 1, -1)
    assert (fields["repetition_penalty"], fields["max_tokens"]) == (1, 64)
    (message,) = fields["messages"]
    assert message["role"] == "user"
    assert '[{"role":"user","content":"look at my code"}]' in message["content"]


def test_a_guide_names_every_possible_answer() -> None:
    answers = ['{"route": "code review"}', '{"route": "the \\"odd\\" one"}', '{"route": "other"}']
    assert body_with(Guided.STRUCTURED_OUTPUTS)["structured_outputs"] == {"choice": answers}
    assert body_with(Guided.GUIDED_CHOICE)["guided_choice"] == answers
    rule, _, literals = body_with(Guided.GRAMMAR)["grammar"].partition(" ::= ")
    assert (rule, [json.loads(literal) for literal in literals.split(" | ")]) == ("root", answers)
    schema = body_with(Guided.JSON_SCHEMA)["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["route"]["enum"] == ["code review", 'the "odd" one', "other"]


def test_the_other_family_answers_with_a_list() -> None:
    variant = Variant.PLANO_ORCHESTRATOR
    choices = body_with(Guided.GUIDED_CHOICE, variant)["guided_choice"]
    assert (choices[0], choices[-1]) == ('{"route": ["code review"]}', '{"route": []}')
    schema = body_with(Guided.JSON_SCHEMA, variant)["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["route"]["items"]["enum"] == ["code review", 'the "odd" one']
    assert read_answer(an_answer('{"route": ["code review", "x"]}'), POLICIES).chosen == 0


def test_no_user_text_asks_nothing() -> None:
    assert request_body(SETTINGS, (Message("system", "be kind"),), POLICIES) is None


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ('{"route": "code review"}', 0),
        ("```json\n{'route': 'code review'}\n```", 0),
        ('{"route": "the \\"odd\\" one"}', 1),
        ('{"route": "other"}', 2),
        ('{"route": "nobody knows it"}', 2),
        ('{"route": "code review', 0),
    ],
)
def test_an_answer_without_probabilities_has_all_of_it(text: str, chosen: int) -> None:
    scores = read_answer(an_answer(text), POLICIES)
    assert scores.chosen == chosen
    assert [*scores.per_policy, scores.none][chosen] == 1.0


def test_the_confidence_is_that_of_the_tokens_that_spell_the_route() -> None:
    tokens = [('{"', -3.0), ("route", -3.0), ('":', -3.0), (' "', -0.0), ("code", -0.1), (" review", -0.2)]
    scores = read_answer(an_answer('{"route": "code review"}', [*tokens, ('"}', -0.05)]), POLICIES)
    assert scores.per_policy[0] == pytest.approx(math.exp(-0.35))
    assert scores.none == pytest.approx(1 - math.exp(-0.35))


def test_an_unsure_none_of_them_stays_the_answer() -> None:
    tokens = [('{"route": "', 0.0), ("other", math.log(0.4)), ('"}', 0.0)]
    scores = read_answer(an_answer('{"route": "other"}', tokens), POLICIES)
    assert (scores.chosen, scores.none) == (2, pytest.approx(0.4))
    assert scores.per_policy == pytest.approx((0.3, 0.3))


def test_log_probabilities_that_do_not_spell_the_answer_do_not_count() -> None:
    scores = read_answer(an_answer('{"route": "code review"}', [("<think>", -9.0)]), POLICIES)
    assert scores.per_policy[0] == 1.0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"message": {}}]}',
        an_answer(None),
        an_answer("hm"),
    ],
)
def test_what_names_no_route_is_garbled(body: bytes) -> None:
    with pytest.raises(RouterError) as caught:
        read_answer(body, POLICIES)
    assert caught.value.reason is Reason.ROUTER_GARBLED


def sums_to_one(scores: Scores) -> bool:
    return math.isclose(sum((*scores.per_policy, scores.none)), 1.0, abs_tol=1e-9)


@given(st.binary(max_size=200) | st.text(max_size=80).map(an_answer))
def test_whatever_comes_is_scores_that_sum_to_one_or_garbled(body: bytes) -> None:
    try:
        scores = read_answer(body, POLICIES)
    except RouterError as error:
        scores, reason = None, error.reason
    assert reason is Reason.ROUTER_GARBLED if scores is None else sums_to_one(scores)
