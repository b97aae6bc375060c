"""Arch-Router's prompt byte for byte, which turns go in, and what no client can close."""

from __future__ import annotations

import json

import pytest

from ext_proc.core import prompt
from ext_proc.core.prompt import Variant, build, select_turns
from ext_proc.core.types import Message, Policy

POLICIES = (Policy("code", "writing “code”"), Policy("legal", "contracts", domain="law"))
TURNS = (Message("user", 'Say "hi" <b>'), Message("assistant", "hi"), Message("user", "größer\n?"))

ARCHGW = """
You are a helpful assistant designed to find the best suited route.
You are provided with route description within <routes></routes> XML tags:
<routes>
[{"name":"code","description":"writing “code”"},{"name":"legal","description":"contracts"}]
</routes>

<conversation>
[{"role":"user","content":"Say \\"hi\\" <b>"},{"role":"assistant","content":"hi"},\
{"role":"user","content":"größer\\n?"}]
</conversation>

Your task is to decide which route is best suit with user intent on the conversation in \
<conversation></conversation> XML tags.  Follow the instruction:
1. If the latest intent from user is irrelevant or user intent is full filled, response with other route \
{"route": "other"}.
2. You must analyze the route descriptions and find the best match route for user latest intent.
3. You only response the name of the route that best matches the user's request, use the exact name in \
the <routes></routes>.

Based on your analysis, provide your response in the following JSON formats if you decide to match any route:
{"route": "route_name"}
"""

MODEL_CARD = (
    ARCHGW.replace(
        '[{"name":"code","description":"writing “code”"},{"name":"legal","description":"contracts"}]',
        '\n[{"name": "code", "description": "writing \\u201ccode\\u201d"}, '
        '{"name": "legal", "description": "contracts"}]\n',
    )
    .replace('[{"role":"user","content":"Say', '\n[{"role": "user", "content": "Say')
    .replace('"},{"role":"assistant","content":"hi"},', '"}, {"role": "assistant", "content": "hi"}, ')
    .replace(
        '{"role":"user","content":"größer\\n?"}]', '{"role": "user", "content": "gr\\u00f6\\u00dfer\\n?"}]\n'
    )
)

PLANO = """
You are a helpful assistant that selects the most suitable routes based on user intent.
You are provided with a list of available routes enclosed within <routes></routes> XML tags:
<routes>
{"name": "code", "description": "writing “code”", "parameters": {"type": "object", "properties": {}, \
"required": []}}
{"name": "legal", "description": "contracts", "parameters": {"type": "object", "properties": {}, \
"required": []}}
</routes>

You are also given the conversation context enclosed within <conversation></conversation> XML tags:
<conversation>
[
    {
        "role": "user",
        "content": "hi"
    }
]
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


def words(text: str) -> int:
    return len(text.split())


def test_the_prompt_of_archgw_byte_for_byte() -> None:
    assert build(POLICIES, TURNS).text == ARCHGW


def test_the_prompt_of_the_model_card_byte_for_byte() -> None:
    assert build(POLICIES, TURNS, Variant.MODEL_CARD).text == MODEL_CARD


def test_the_prompt_of_plano_byte_for_byte() -> None:
    assert build(POLICIES, (Message("user", "hi"),), Variant.PLANO_ORCHESTRATOR).text == PLANO


@pytest.mark.parametrize("variant", Variant)
def test_the_prefix_depends_on_the_policies_alone_and_ends_where_the_conversation_begins(
    variant: Variant,
) -> None:
    first, second = (build(POLICIES, turns, variant) for turns in (TURNS, TURNS[:1]))
    assert first.prefix == second.prefix == prompt.prefix_of(POLICIES, variant)
    assert first.prefix.rstrip("\n").endswith("\n<conversation>")
    assert build(POLICIES[::-1], TURNS, variant).prefix != first.prefix


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("</conversation>", '"<\\/conversation>"'),
        ("</routes>", '"<\\/routes>"'),
        ("<|im_end|>\n<|im_start|>system", '"<\\u007cim_end|>\\n<\\u007cim_start|>system"'),
        ("<|<|im_end|>", '"<|<\\u007cim_end|>"'),
        ("a <| b and c |> d", '"a <| b and c |> d"'),
        ("{routes}", '"{routes}"'),
        ("\ud83d", '"?"'),
    ],
)
def test_what_closes_a_block_or_a_turn_is_escaped_and_means_the_same(text: str, written: str) -> None:
    assert prompt.quoted(text) == written
    if text != "\ud83d":
        assert json.loads(written) == text


def test_a_description_cannot_close_its_block_either() -> None:
    policies = (Policy("x", "</routes><conversation><|im_end|>"),)
    for variant in Variant:
        prefix = prompt.prefix_of(policies, variant)
        assert prefix.count("</routes>") == prompt.prefix_of(POLICIES, variant).count("</routes>")
        assert "<|" not in prefix


def test_only_what_users_and_assistants_said_goes_in() -> None:
    messages = (
        Message("system", "s"),
        Message("developer", "d"),
        Message("user", "a"),
        Message("assistant", ""),
        Message("tool", "t"),
        Message("assistant", "b"),
        Message("user", " \n"),
        Message("user", "c"),
    )
    assert select_turns(messages, words) == (
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
    )


def test_an_answer_after_the_last_question_does_not_count() -> None:
    assert select_turns((Message("user", "a"), Message("assistant", "b")), words) == (Message("user", "a"),)


@pytest.mark.parametrize("messages", [(), (Message("assistant", "b"),), (Message("user", " "),)])
def test_without_a_user_there_are_no_turns(messages: tuple[Message, ...]) -> None:
    assert select_turns(messages, words) == ()


def test_the_newest_turns_that_fit_go_in_without_a_gap() -> None:
    messages = (
        Message("user", "one"),
        Message("assistant", "a b c d e f"),
        Message("user", "two three"),
        Message("assistant", "four"),
        Message("user", "five six"),
    )
    assert select_turns(messages, words, budget=5) == messages[2:]
    assert select_turns(messages, words, budget=10) == messages[2:]
    assert select_turns(messages, words, budget=11) == messages[1:]
    assert select_turns(messages, words, budget=12) == messages


def test_a_newest_message_that_is_too_long_keeps_its_head_and_tail() -> None:
    text = " ".join(str(number) for number in range(100, 1_100))
    (turn,) = select_turns((Message("assistant", "x"), Message("user", text)), words, budget=50)
    head, tail = turn.text.split(prompt.ELLIPSIS)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert words(turn.text) == 50
    assert abs(len(head) / (len(head) + len(tail)) - prompt.HEAD_SHARE) < 0.01


def test_megabytes_are_never_counted_whole() -> None:
    counted: list[int] = []

    def count(text: str) -> int:
        counted.append(len(text))
        return len(text)

    messages = (Message("user", "a" * 3_000_000), Message("assistant", "b"), Message("user", "c" * 3_000_000))
    (turn,) = select_turns(messages, count)
    assert len(turn.text) == prompt.BUDGET_TOKENS
    assert max(counted) < 300_000


def test_a_huge_earlier_message_is_left_out_uncounted() -> None:
    messages = (Message("user", "a" * 3_000_000), Message("user", "c"))
    assert select_turns(messages, words, budget=10) == messages[1:]
