"""The table in the state machine's docstring, row by row."""

from __future__ import annotations

import pytest

from ext_proc.core.exchange import (
    Acknowledge,
    AwaitBody,
    Decide,
    Exchange,
    Other,
    Part,
    Pass,
    RequestBody,
    RequestHeaders,
)
from ext_proc.core.types import Dialect

CALL = RequestHeaders("POST", "/v1/messages", "application/json", request_id="r")
FOREIGN = RequestHeaders("GET", "/")
BODY = RequestBody(b"{}")


def test_headers_of_no_llm_call_pass_and_nothing_after_them_counts() -> None:
    exchange = Exchange()
    assert exchange.receive(FOREIGN) == Pass()
    assert exchange.receive(BODY) == Acknowledge(Part.REQUEST_BODY)
    assert exchange.receive(CALL) == Acknowledge(Part.REQUEST_HEADERS)


def test_headers_of_an_llm_call_without_a_body_are_decided_at_once() -> None:
    exchange = Exchange()
    headers = RequestHeaders("POST", "/v1/messages", ends_request=True)
    assert exchange.receive(headers) == Decide(Part.REQUEST_HEADERS, Dialect.MESSAGES, headers, b"")
    assert exchange.receive(BODY) == Acknowledge(Part.REQUEST_BODY)


def test_headers_of_an_llm_call_that_is_no_json_are_decided_without_its_body() -> None:
    exchange = Exchange()
    headers = RequestHeaders("POST", "/v1/messages", "text/plain")
    assert exchange.receive(headers) == Decide(Part.REQUEST_HEADERS, Dialect.MESSAGES, headers, b"")
    assert exchange.receive(BODY) == Acknowledge(Part.REQUEST_BODY)


def test_headers_of_an_llm_call_await_the_body_which_is_decided_once() -> None:
    exchange = Exchange()
    assert exchange.receive(CALL) == AwaitBody()
    assert exchange.receive(BODY) == Decide(Part.REQUEST_BODY, Dialect.MESSAGES, CALL, b"{}")
    assert exchange.receive(BODY) == Acknowledge(Part.REQUEST_BODY)
    assert exchange.receive(CALL) == Acknowledge(Part.REQUEST_HEADERS)


def test_a_second_header_message_does_not_replace_the_first() -> None:
    exchange = Exchange()
    exchange.receive(CALL)
    assert exchange.receive(FOREIGN) == Acknowledge(Part.REQUEST_HEADERS)
    assert exchange.receive(BODY) == Decide(Part.REQUEST_BODY, Dialect.MESSAGES, CALL, b"{}")


def test_a_body_before_its_headers_is_acknowledged() -> None:
    exchange = Exchange()
    assert exchange.receive(BODY) == Acknowledge(Part.REQUEST_BODY)
    assert exchange.receive(CALL) == AwaitBody()


@pytest.mark.parametrize("part", Part)
def test_other_parts_are_acknowledged_between_any_two(part: Part) -> None:
    exchange = Exchange()
    for event in (CALL, BODY):
        assert exchange.receive(Other(part)) == Acknowledge(part)
        exchange.receive(event)
    assert exchange.receive(Other(part)) == Acknowledge(part)


def test_another_role_says_itself_what_is_a_call() -> None:
    asked: list[tuple[str, str]] = []

    def classify(method: str, path: str) -> Dialect:
        asked.append((method, path))
        return Dialect.EMBEDDINGS

    assert Exchange(classify).receive(RequestHeaders("M", "/p")) == AwaitBody()
    assert asked == [("M", "/p")]
