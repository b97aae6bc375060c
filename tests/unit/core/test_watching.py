"""An answer's parts to an observation."""

from __future__ import annotations

import orjson
import pytest

from ext_proc.core.exchange import AnswerBody, AnswerHeaders
from ext_proc.core.observation import Role
from ext_proc.core.reply import Reply
from ext_proc.core.types import Price
from ext_proc.core.watching import Answer, AnswerWatch, Subject
from tests.support.answers import CHAT_EVENTS, COMPLETION, EVENTS, JSON, sse
from tests.support.builders import a_target

TARGETS = {
    "openai/small": a_target("openai/small", price=Price(1e6, 2e6)),
    "other/backup": a_target("other/backup", price=Price(0.0, 1e6)),
}


def watched(*parts: tuple[float, AnswerHeaders | AnswerBody], role: Role = Role.PRIMARY) -> Answer:
    subject = Subject(role, "id", "pair", "coding", "baseline", "openai/small", bucket=7)
    watch = AnswerWatch(subject, 100.0, 1 << 10)
    for now, part in parts:
        if isinstance(part, AnswerHeaders):
            watch.begin(part, now)
        else:
            list(watch.take(part, now))
    return watch.finish(1e9, TARGETS)


def test_a_whole_answer() -> None:
    body = orjson.dumps(COMPLETION)
    answer = watched(
        (101.0, AnswerHeaders(200, JSON)),
        (101.0, AnswerBody(b"")),
        (101.5, AnswerBody(body[:9])),
        (104.0, AnswerBody(body[9:], ends_answer=True)),
    )
    seen = answer.observation
    assert (seen.status, seen.first_byte_s, seen.latency_s, seen.at) == (200, 1.5, 4.0, 1e9)
    assert (seen.tokens_in, seen.tokens_out, seen.cost) == (11, 7, 11 + 14)
    assert (seen.target, seen.arm, seen.bucket, seen.policy) == ("openai/small", "baseline", 7, "coding")
    assert (seen.is_error, seen.cut, seen.fallback) == (False, False, False)
    assert answer.reply == Reply("It rains.")


def test_the_target_that_answered_is_the_one_that_envoy_names() -> None:
    headers = AnswerHeaders(200, JSON, model="other/backup")
    seen = watched(
        (101.0, headers), (101.0, AnswerBody(orjson.dumps(COMPLETION), ends_answer=True))
    ).observation
    assert (seen.target, seen.fallback, seen.cost) == ("other/backup", True, 7.0)


@pytest.mark.parametrize("role", Role)
def test_a_cut_primary_may_be_the_clients_doing_and_a_cut_copy_is_the_providers(role: Role) -> None:
    seen = watched(
        (101.0, AnswerHeaders(200, EVENTS)), (101.0, AnswerBody(b"data: {}\n\n")), role=role
    ).observation
    assert seen.cut is (role is Role.PRIMARY)
    assert seen.is_error is (role is not Role.PRIMARY)


def test_a_copy_without_an_answer_is_an_error() -> None:
    seen = watched(role=Role.SHADOW).observation
    assert (seen.status, seen.first_byte_s, seen.is_error) == (0, None, True)


def test_an_answer_of_headers_alone_has_ended_with_them() -> None:
    seen = watched((101.0, AnswerHeaders(204, ends_answer=True))).observation
    assert (seen.status, seen.latency_s, seen.cut, seen.is_error) == (204, 1.0, False, False)


@pytest.mark.parametrize("role", Role)
def test_an_answer_with_trailers_has_ended_with_them(role: Role) -> None:
    watch = AnswerWatch(Subject(role, "id", "pair", "coding", "", "openai/small"), 100.0, 0)
    watch.end(100.5)
    assert not watch.has_ended
    watch.begin(AnswerHeaders(200, JSON), 101.0)
    list(watch.take(AnswerBody(orjson.dumps(COMPLETION)), 102.0))
    watch.end(103.0)
    seen = watch.finish(1e9, TARGETS).observation
    assert watch.has_ended
    assert (seen.latency_s, seen.tokens_out, seen.cut, seen.is_error) == (3.0, 7, False, False)


def test_an_interim_answer_is_not_the_answer() -> None:
    end = AnswerBody(orjson.dumps(COMPLETION), ends_answer=True)
    seen = watched((101.0, AnswerHeaders(103)), (102.0, AnswerHeaders(200, JSON)), (103.0, end)).observation
    assert (seen.status, seen.latency_s) == (200, 3.0)


def test_an_error_page_is_judged_by_its_status_alone() -> None:
    page = AnswerBody(b"no such model", ends_answer=True)
    seen = watched((101.0, AnswerHeaders(404, JSON)), (101.0, page)).observation
    assert not seen.is_error


def test_a_stream_that_ends_without_its_last_event_is_broken() -> None:
    body = AnswerBody(sse(*CHAT_EVENTS[:2]), ends_answer=True)
    assert watched((101.0, AnswerHeaders(200, EVENTS)), (101.0, body)).observation.broken
