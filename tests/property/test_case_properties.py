"""Any line of a case file is a case or a named problem, and a ladder of confidence ends somewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ext_proc.core.errors import Reason
from ext_proc.core.types import Confidence, Policy, Verdict
from ext_proc.core.verdict import settle
from ext_proc.evaluation.cases import read_cases

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {}, optional={"role": st.sampled_from(["user", "assistant", "tool"]) | VALUES, "content": VALUES}
    ),
    max_size=3,
)
NAMES = st.sampled_from(["code", "law", "other", "1", "2"])
POLICY = st.fixed_dictionaries(
    {"name": NAMES | VALUES},
    optional={"description": VALUES, "domain": VALUES, "examples": VALUES, "not_examples": VALUES},
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "messages": MESSAGES | VALUES,
        "gold": NAMES | st.dictionaries(NAMES, NAMES, max_size=2) | VALUES,
        "policies": st.lists(POLICY, max_size=3) | VALUES,
        "policy_set": VALUES,
        "id": VALUES,
        "conversation_id": VALUES,
        "span_id": VALUES,
        "decided": st.dictionaries(st.sampled_from(["policy", "scores", "none", "failure"]), VALUES) | VALUES,
    },
)


@given(st.lists(ROWS | VALUES, min_size=1, max_size=4), st.booleans())
def test_any_line_is_a_case_or_a_problem_with_its_number(
    tmp_path_factory: Any, rows: list[Any], labelled: bool
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "any-cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = read_cases(path, labelled=labelled)
    numbers = [int(problem.removeprefix(f"{path}:").partition(":")[0]) for problem in file.problems]
    assert numbers == sorted(set(numbers))
    assert len(file.cases) >= len(rows) - len(numbers)
    for case in file.cases:
        names = {policy.name for policy in case.policies}
        assert case.gold in {*names, "other"} or (case.gold is None and not labelled)
        assert any(message.role == "user" for message in case.messages)


PARTS = st.lists(st.floats(0, 1), min_size=5, max_size=5).filter(lambda parts: sum(parts) > 0)
POLICIES = (Policy("a", "", "d"), Policy("b", "", "d"), Policy("d", ""), Policy("e", "", "nowhere"))


@given(PARTS, st.sampled_from(["a", "b", "d", "e", None]), st.floats(0, 1), st.floats(0, 1))
def test_the_ladder_ends_at_the_policy_its_domain_or_none(
    parts: list[float], said: str | None, threshold: float, margin: float
) -> None:
    *scores, none = (part / sum(parts) for part in parts)
    verdict = Verdict(said, tuple(zip((p.name for p in POLICIES), scores, strict=True)), none)
    policy, reason = settle(verdict, POLICIES, Confidence(threshold, margin))
    assert policy in {said, "d", None}
    assert (policy is None) == (reason in {Reason.UNSURE, Reason.NO_POLICY_MATCHED})
    looser, _ = settle(verdict, POLICIES, Confidence())
    assert looser == said
