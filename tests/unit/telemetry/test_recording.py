"""Decisions on disk: opt-in, bounded, redacted, and never at a request's cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ext_proc.core.decide import Question, decide
from ext_proc.core.errors import Reason
from ext_proc.core.settings import RecordSettings
from ext_proc.core.types import Caller, Dialect, LlmCall, Message, Policy, Verdict
from ext_proc.evaluation.cases import read_cases
from ext_proc.telemetry.recording import MAX_WAITING, Recording
from tests.support.builders import a_route, a_snapshot, a_target

ROUTES = (a_route(a_target("openai/large"), policy="code"), a_route(a_target(), policy="law"))
SNAPSHOT = a_snapshot(a_target(), ROUTES)
VERDICT = Verdict("code", (("code", 0.75), ("law", 0.125)), 0.125)


class Missed(list[tuple[str, str]]):
    def take(self, reason: str, error: str) -> None:
        self.append((reason, error))


class UnderOne:
    """A recording with the recorder of one configuration."""

    def __init__(self, recording: Recording, settings: RecordSettings) -> None:
        self.recorder = recording.under(settings, SNAPSHOT)
        self.close = recording.close


def settings_at(path: Path, **changes: Any) -> RecordSettings:
    values = {"redact": True, "max_bytes": 1 << 20} | changes
    return RecordSettings(str(path), **values)


def a_recording(path: Path, missed: Missed | None = None, **changes: Any) -> UnderOne:
    recording = Recording((Missed() if missed is None else missed).take)
    return UnderOne(recording, settings_at(path, **changes))


def record(
    recording: UnderOne,
    text: str = "fix my code",
    verdict: Verdict = VERDICT,
    policies: tuple[Policy, ...] = SNAPSHOT.policies,
) -> None:
    messages = (
        Message("system", "be kind"),
        Message("user", "hi"),
        Message("assistant", "hello"),
        Message("tool", "42"),
        Message("user", text),
    )
    call, caller = LlmCall(Dialect.CHAT_COMPLETIONS, "m", messages), Caller("r-1", "jane's session")
    question = Question(call, policies, SNAPSHOT.routes)
    recording.recorder.record(call, policies, verdict, decide(SNAPSHOT, question, verdict, caller), caller)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_decision_is_a_line_of_a_case_file(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    recording = a_recording(path)
    record(recording, "mail jane@example.org my code")
    record(recording, verdict=Verdict(failure=Reason.ROUTER_TIMEOUT))
    recording.close()
    file = read_cases(path, labelled=False)
    assert file.problems == ()
    first, second = file.cases
    assert first.messages == (
        Message("user", "hi"),
        Message("assistant", "hello"),
        Message("user", "mail <email> my code"),
    )
    assert (first.policies, first.decided) == (SNAPSHOT.policies, VERDICT)
    assert second.decided == Verdict(failure=Reason.ROUTER_TIMEOUT)
    decided = rows(path)[0]["decided"]
    assert (decided["reason"], decided["target"]) == ("policy", "openai/large")
    assert first.conversation == second.conversation
    assert "jane" not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_policies_that_a_request_brought_along_are_in_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    recording = a_recording(path)
    record(recording, policies=(Policy("code", "mine"), Policy("other things", "yours")))
    recording.close()
    (row,) = rows(path)
    assert row["policies"][0] == {"name": "code", "description": "mine"}
    assert "policy_set" not in row


@pytest.mark.parametrize(("redact", "expected"), [(True, "<email>"), (False, "jane@example.org")])
def test_redaction_can_be_left_out(tmp_path: Path, redact: bool, expected: str) -> None:
    path = tmp_path / "decisions.jsonl"
    recording = a_recording(path, redact=redact)
    record(recording, "jane@example.org")
    recording.close()
    assert rows(path)[0]["messages"][-1]["content"] == expected


def test_the_newest_stay_within_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    recording = a_recording(path, max_bytes=8_000)
    for number in range(60):
        record(recording, f"text {number}")
    recording.close()
    files = [tmp_path / "decisions.jsonl.1", path]
    texts = [row["messages"][-1]["content"] for file in files for row in rows(file)]
    assert texts == [f"text {number}" for number in range(60 - len(texts), 60)]
    assert sum(file.stat().st_size for file in files) <= 8_000


def test_a_disk_that_fails_costs_the_record_and_is_told_once(tmp_path: Path) -> None:
    missed = Missed()
    path = tmp_path / "folder"
    path.mkdir()
    recording = a_recording(path, missed)
    for _ in range(3):
        record(recording)
    recording.close()
    assert missed == [("failed", "IsADirectoryError"), ("failed", ""), ("failed", "")]


def test_what_cannot_wait_is_not_recorded(tmp_path: Path) -> None:
    missed = Missed()
    recording = a_recording(tmp_path / "decisions.jsonl", missed)
    recording.close()
    for _ in range(MAX_WAITING + 2):
        record(recording)
    assert missed == [("too_many_waiting", "")] * 2


def test_half_a_character_is_written_as_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    recording = a_recording(path)
    record(recording, "\ud83d")
    recording.close()
    assert rows(path)[0]["messages"][-1]["content"] == "?"


def test_each_decision_is_written_where_its_own_configuration_says(tmp_path: Path) -> None:
    recording = Recording(Missed().take)
    first, other = (UnderOne(recording, settings_at(tmp_path / name)) for name in ("one", "other"))
    for under in (first, other, first):
        record(under)
    recording.close()
    assert (len(rows(tmp_path / "one")), len(rows(tmp_path / "other"))) == (2, 1)
    assert not recording.is_open


def test_several_processes_write_one_file_and_lose_nothing_when_it_turns(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    one, other = a_recording(path, max_bytes=24_000), a_recording(path, max_bytes=24_000)
    for number in range(12):
        record(one, f"one {number} " + "x" * 500)
        record(other, f"other {number} " + "x" * 500)
    one.close()
    other.close()
    found = rows(path) + rows(tmp_path / "decisions.jsonl.1")
    texts = {row["messages"][-1]["content"].rpartition(" ")[0] for row in found}
    assert texts == {f"{who} {number}" for who in ("one", "other") for number in range(12)}
    assert len(found) == 24
