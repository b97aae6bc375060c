"""What is unclear in policies, to a router of which a person can say what it does."""

from __future__ import annotations

import pytest

from ext_proc.core.types import Policy, Scores
from ext_proc.evaluation.lint import Part, lint, overlaps
from tests.unit.evaluation.cases import WordRouter

CODE = Policy("code", "write code and scripts")
LAW = Policy("law", "contracts leases courts")


async def findings(*policies: Policy) -> list[tuple[str, Part, int | None, str]]:
    def ignore(done: int, of: int) -> None:
        pass

    found = await lint(WordRouter(), policies, ignore)
    return [(finding.policy, finding.part, finding.index, finding.text) for finding in found.findings]


async def test_sound_policies_are_sound() -> None:
    assert await findings(CODE, LAW) == []


async def test_two_policies_that_say_the_same_overlap() -> None:
    ((policy, part, _, text), *rest) = await findings(
        CODE, LAW, Policy("coding", "write code and scripts now")
    )
    assert (policy, part) == ("coding", Part.DESCRIPTION)
    assert text.startswith('the router can hardly tell "coding" from "code" (overlap 0.9')
    assert rest == []


async def test_of_many_alike_the_nearest_are_told_and_the_others_counted() -> None:
    alike = [Policy(f"code {number}", "write code and scripts") for number in range(9)]
    texts = [text for policy, part, _, text in await findings(LAW, *alike) if part is Part.DESCRIPTION]
    told = [text for text in texts if text.startswith('the router can hardly tell "code 8" from ')]
    assert [text.endswith(", nor from 5 more") for text in told] == [False, False, True]
    third = [text for text in texts if text.startswith('the router can hardly tell "code 3" from ')]
    assert len(third) == 3
    assert not any("nor from" in text for text in third)


async def test_a_name_that_is_anothers_description() -> None:
    found = await findings(Policy("contracts", "write code and scripts"), LAW)
    text = 'the name "contracts" fits the description of "law" better than its own'
    assert found[0] == ("contracts", Part.NAME, None, text)


@pytest.mark.parametrize(
    "description", ["anything else", "help with various tasks", "other questions about it"]
)
async def test_a_description_that_says_nothing(description: str) -> None:
    ((policy, part, _, text),) = await findings(CODE, Policy("rest", description))
    assert (policy, part) == ("rest", Part.DESCRIPTION)
    assert "too vague to win" in text


async def test_a_description_in_another_script_is_not_judged_by_english_words() -> None:
    assert await findings(CODE, Policy("legal", "合同 租约")) == []


async def test_examples_that_go_elsewhere() -> None:
    code = Policy(
        "code",
        "write code and scripts",
        examples=("write scripts", "my contracts", "zzz"),
        not_examples=("code of law", "write code"),
    )
    found = await findings(code, LAW)
    assert [finding for finding in found if finding[0] == "code"] == [
        ("code", Part.EXAMPLES, 1, 'the router sends this example to "law"'),
        ("code", Part.EXAMPLES, 2, "the router sends this example to none of the policies"),
        ("code", Part.NOT_EXAMPLES, 0, "the router sends this message here all the same"),
        ("code", Part.NOT_EXAMPLES, 1, "the router sends this message here all the same"),
    ]


def test_overlap_is_one_for_a_toss_of_a_coin_and_falls_with_the_odds() -> None:
    policies = [CODE, LAW, Policy("art", "poems")]
    answers = [
        Scores((0.45, 0.45, 0.1), 0.0),
        Scores((0.4, 0.5, 0.1), 0.0),
        Scores((0.0, 0.0016, 0.9984), 0.0),
    ]
    pairs = overlaps(policies, answers)
    assert [(pair.first, pair.second) for pair in pairs] == [("code", "law"), ("law", "art"), ("code", "art")]
    # (1 + 2 / (1 + 1.25 ** 0.25)) / 2
    assert pairs[0].value == pytest.approx(0.98606, abs=1e-5)
    # 2 / (1 + 5 ** 0.25) and 2 / (1 + 624 ** 0.25)
    assert pairs[1].value == pytest.approx((0.80137 + 0.33342) / 2, abs=1e-4)
