"""Putting cases to a router, one after the other, as a server would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from ext_proc.core.errors import RouterError
from ext_proc.core.ports import Router
from ext_proc.core.types import Confidence, Verdict
from ext_proc.core.verdict import settle, verdict_of
from ext_proc.evaluation.cases import OTHER, Case

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A case and what was said of it. `seconds` is None where it was not timed."""

    case: Case
    verdict: Verdict
    seconds: float | None = None

    @property
    def said(self) -> str:
        """The policy's name, `OTHER`, or for a router that failed its reason in brackets: no label."""
        return said(self.verdict)

    @property
    def is_right(self) -> bool:
        return self.said == self.case.gold


def said(verdict: Verdict) -> str:
    if verdict.failure is not None:
        return f"({verdict.failure.value})"
    return OTHER if verdict.policy is None else verdict.policy


def recorded(cases: Sequence[Case]) -> list[Trial]:
    """What was decided when the cases were recorded, for those that were."""
    return [Trial(case, case.decided) for case in cases if case.decided is not None]


_ANY = Confidence()


async def put(
    router: Router,
    cases: Sequence[Case],
    progress: Progress = lambda done, of: None,
    needed: Confidence = _ANY,
) -> list[Trial]:
    """Ask the router about each case; the trials in the order of the cases.

    Cases with the same policies are asked in a row, in their order, so that policies are prepared once
    and a conversation's turns follow each other as they do in service. What the router says counts as in
    service too, where `needed` says how sure it must be.

    Errors: RouterError when it cannot prepare policies. What it raises about one case is a verdict.
    """
    trials: dict[int, Trial] = {}
    groups: dict[int, list[int]] = {}
    for index, case in enumerate(cases):
        groups.setdefault(id(case.policies), []).append(index)
    for indexes in groups.values():
        await router.prepare(cases[indexes[0]].policies)
        for index in indexes:
            trials[index] = await _trial(router, cases[index], needed)
            progress(len(trials), len(cases))
    return [trials[index] for index in range(len(cases))]


async def _trial(router: Router, case: Case, needed: Confidence) -> Trial:
    started = perf_counter()
    try:
        verdict = verdict_of(await router.score(case.messages, case.policies), case.policies)
    except RouterError as error:
        verdict = Verdict(failure=error.reason)
    seconds = perf_counter() - started
    policy, _ = settle(verdict, case.policies, needed)
    return Trial(case, replace(verdict, policy=policy), seconds)
