"""Putting cases to a router."""

from __future__ import annotations

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.types import Message, Policy, Scores
from ext_proc.evaluation.cases import OTHER
from ext_proc.evaluation.trials import put
from tests.unit.evaluation.cases import POLICIES, WordRouter, a_case

OTHERS = (Policy("poetry", "write poems"),)


async def test_policies_are_prepared_once_and_the_trials_keep_the_order_of_the_cases() -> None:
    router = WordRouter()
    cases = [
        a_case("code", "write code"),
        a_case("poetry", "write poems", OTHERS),
        a_case(OTHER, "good morning"),
        a_case("law", "two leases"),
    ]
    done: list[tuple[int, int]] = []
    trials = await put(router, cases, lambda *counts: done.append(counts))
    assert router.prepared == [POLICIES, OTHERS]
    assert router.asked == ["write code", "good morning", "two leases", "write poems"]
    assert [trial.case for trial in trials] == cases
    assert [trial.said for trial in trials] == ["code", "poetry", OTHER, "law"]
    assert all(trial.is_right and trial.seconds is not None for trial in trials)
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


class FailingRouter(WordRouter):
    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        if messages[-1].text == "bad":
            raise RouterError(Reason.ROUTER_UNREACHABLE, "no")
        return await super().score(messages, policies)


async def test_what_a_router_raises_about_one_case_is_its_verdict() -> None:
    trials = await put(FailingRouter(), [a_case(OTHER, "bad"), a_case("code", "write code")])
    assert [trial.said for trial in trials] == ["(router_unreachable)", "code"]
    assert not trials[0].is_right
