"""What has the form of something private is taken out; what a request is about stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_proc.core.redact import MAX_CHARS, redact, shorten

GONE = [
    ("write to jane.doe+x@mail.example.org today", "write to <email> today"),
    ("call +44 (0)20 7946 0958 or 555-010-9999", "call <number> or <number>"),
    ("card 4111 1111 1111 1111, order 20261124-99", "card <number>, order <number>"),
    ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN <iban> please"),
    ("see https://intra.example/x?token=abc and reply", "see <url> and reply"),
    ("postgres://admin:hunter2@db/x is down", "<url> is down"),
    ("my password is hunter2, why", "my password is <secret>, why"),
    ('{"api_key": "abc", "n": 1}', '{"api_key": "<secret>", "n": 1}'),
    ("Authorization: Bearer abc.def", "Authorization: Bearer <secret>"),
    ("key sk-proj-4f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c works", "key <secret> works"),
    ("eyJhbGciOiJIUzI1NiJ9x1y2.eyJzdWIiOiIxMjM0NTY3.SflKxwRJSMeKKF2QT4", "<secret>"),
    ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nok?", "<private key>\nok?"),
]
STAYS = [
    "Write a Python function that reverses a linked list",
    "def add(a, b):\n    return a + b  # 12 lines",
    "my order 48213 from 2024",
    "what does ^\\d{3}-\\d{4}$ match?",
    "how do I reset a password?",
    "internationalization_of_everything_everywhere",
    "重置我的密码",
]


@pytest.mark.parametrize(("text", "expected"), GONE)
def test_what_identifies_or_opens_something_goes(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize("text", STAYS)
def test_what_a_request_is_about_stays(text: str) -> None:
    assert redact(text) == text


def test_a_long_text_keeps_both_ends() -> None:
    text = f"summarise this: {'x ' * 5000} in one line"
    short = shorten(text)
    assert len(short) == MAX_CHARS
    assert short.startswith("summarise this")
    assert short.endswith("in one line")
    assert shorten(short) == short


@given(st.text(max_size=300), st.sampled_from(["a@", "-----BEGIN KEY-----", "x://", "1 ", "pass: ", "aB1-"]))
def test_any_text_can_be_redacted(text: str, repeated: str) -> None:
    assert isinstance(redact(text + repeated * 2000), str)
