"""How sure a router must be, and what its answer falls to when it is not."""

from __future__ import annotations

import pytest

from ext_proc.core.decide import Question, decide
from ext_proc.core.errors import Reason
from ext_proc.core.types import Caller, Confidence, Dialect, LlmCall, Policy, Verdict
from ext_proc.core.verdict import settle
from tests.support.builders import a_route, a_snapshot, a_target

WORK = (
    Policy("write", "write code", "programming"),
    Policy("debug", "find errors", "programming"),
    Policy("programming", "all about code"),
    Policy("law", "contracts"),
    Policy("poems", "poems", "art"),
)


def verdict(policy: str | None, write: float, debug: float, code: float, law: float, poems: float) -> Verdict:
    scores = (("write", write), ("debug", debug), ("programming", code), ("law", law), ("poems", poems))
    return Verdict(policy, scores, 1 - write - debug - code - law - poems)


SURE = verdict("write", 0.8, 0.05, 0.05, 0.0, 0.0)
TORN = verdict("write", 0.4, 0.35, 0.05, 0.1, 0.0)
LOST = verdict("write", 0.3, 0.0, 0.0, 0.25, 0.2)


@pytest.mark.parametrize(
    ("said", "needed", "expected"),
    [
        (SURE, Confidence(), ("write", Reason.POLICY)),
        (LOST, Confidence(), ("write", Reason.POLICY)),
        (SURE, Confidence(threshold=0.8, margin=0.7), ("write", Reason.POLICY)),
        # Torn between two actions, and sure of their domain.
        (TORN, Confidence(threshold=0.5), ("programming", Reason.DOMAIN)),
        (TORN, Confidence(margin=0.1), ("programming", Reason.DOMAIN)),
        (TORN, Confidence(threshold=0.8, margin=0.7), ("programming", Reason.DOMAIN)),
        (TORN, Confidence(threshold=0.81), (None, Reason.UNSURE)),
        (LOST, Confidence(margin=0.1), (None, Reason.UNSURE)),
        # "None of them" is an answer too: it must be led as well.
        (verdict("write", 0.45, 0.0, 0.0, 0.0, 0.1), Confidence(margin=0.05), (None, Reason.UNSURE)),
        # A domain's own policy counts with the actions in it.
        (verdict("programming", 0.3, 0.2, 0.35, 0.0, 0.0), Confidence(0.5), ("programming", Reason.POLICY)),
        # A policy without a domain, and one whose domain has no policy, have nothing to fall to.
        (verdict("law", 0.1, 0.1, 0.1, 0.4, 0.0), Confidence(0.5), (None, Reason.UNSURE)),
        (verdict("poems", 0.1, 0.1, 0.1, 0.0, 0.4), Confidence(0.5), (None, Reason.UNSURE)),
        (verdict(None, 0.1, 0.0, 0.0, 0.0, 0.0), Confidence(0.5), (None, Reason.NO_POLICY_MATCHED)),
    ],
)
def test_the_ladder(said: Verdict, needed: Confidence, expected: tuple[str | None, Reason]) -> None:
    assert settle(said, WORK, needed) == expected


def test_a_decision_goes_where_the_ladder_ends_and_says_so() -> None:
    small, large = a_target("openai/small"), a_target("openai/large")
    routes = (a_route(small, policy="write"), a_route(large, policy="programming"))
    call = LlmCall(Dialect.CHAT_COMPLETIONS, None, ())
    question = Question(call, WORK, {route.policy.name: route for route in routes})
    default = a_target("openai/default")

    def decided(needed: Confidence) -> tuple[str, str | None, Reason]:
        snapshot = a_snapshot(default, routes, confidence=needed)
        decision = decide(snapshot, question, TORN, Caller("r", None))
        return decision.target.name, decision.policy, decision.reason

    assert decided(Confidence()) == ("openai/small", "write", Reason.POLICY)
    assert decided(Confidence(0.5)) == ("openai/large", "programming", Reason.DOMAIN)
    assert decided(Confidence(0.9)) == ("openai/default", None, Reason.UNSURE)
    assert not Reason.DOMAIN.is_fallback
    assert not Reason.UNSURE.is_fallback
