"""Where the answers to one request meet: bounded in number and time. Pure, with an explicit `now`."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from ext_proc.core.observation import Role
from ext_proc.core.watching import Answer


class Missed(StrEnum):
    """Why an answer met no counterpart: a metric label."""

    EXPIRED = "expired"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary's answer and a copy's."""

    primary: Answer = field(repr=False)
    copy: Answer = field(repr=False)


@dataclass(slots=True)
class _Meeting:
    """What has come of one request so far. `expected` copies are still to come once the primary is here."""

    deadline: float
    primary: Answer | None = None
    copies: list[Answer] = field(default_factory=list)
    expected: int = 0


class PairTable:
    """Holds answers until their counterparts come, at most `max_pairs` requests for `timeout_s` each."""

    def __init__(self, max_pairs: int, timeout_s: float) -> None:
        self._max_pairs = max_pairs
        self._timeout_s = timeout_s
        # By deadline too, because all wait for the same time.
        self._meetings: OrderedDict[str, _Meeting] = OrderedDict()
        self._missed: dict[Missed, int] = dict.fromkeys(Missed, 0)

    def configure(self, max_pairs: int, timeout_s: float) -> None:
        """Take other bounds. What waits already does so for as long as it was to."""
        self._max_pairs, self._timeout_s = max_pairs, timeout_s

    def __len__(self) -> int:
        return len(self._meetings)

    def add(self, answer: Answer, now: float) -> list[Pair]:
        """Take an answer, and give the pairs that it completes.

        A primary without copies on their way waits for nobody. A second primary under one name, which a
        retry of the client's cannot make, is not believed.
        """
        self.expire(now)
        subject = answer.subject
        is_primary = subject.role is Role.PRIMARY
        if is_primary and not subject.copies:
            return []
        meeting = self._meetings.get(subject.pair)
        if meeting is None:
            if len(self._meetings) >= self._max_pairs:
                self._missed[Missed.FULL] += 1
                return []
            meeting = self._meetings[subject.pair] = _Meeting(now + self._timeout_s)
        if is_primary:
            if meeting.primary is not None:
                return []
            meeting.primary, meeting.expected = answer, subject.copies
            pairs = [Pair(answer, copy) for copy in meeting.copies]
            meeting.copies.clear()
        elif meeting.primary is None:
            meeting.copies.append(answer)
            pairs = []
        else:
            pairs = [Pair(meeting.primary, answer)]
        meeting.expected -= len(pairs)
        if meeting.primary is not None and meeting.expected <= 0:
            del self._meetings[subject.pair]
        return pairs

    def expire(self, now: float) -> None:
        """Let go of what has waited too long."""
        while self._meetings:
            name, meeting = next(iter(self._meetings.items()))
            if meeting.deadline > now:
                return
            del self._meetings[name]
            self._missed[Missed.EXPIRED] += max(1, len(meeting.copies))

    def take_missed(self) -> dict[Missed, int]:
        """How many answers missed their counterpart since the last call, by why."""
        missed, self._missed = self._missed, dict.fromkeys(Missed, 0)
        return missed
