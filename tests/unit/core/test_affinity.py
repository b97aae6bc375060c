"""What identifies a session, and the bucket that it falls in."""

from __future__ import annotations

from ext_proc.core.affinity import FINGERPRINT_CHARS, bucket_of, session_key
from ext_proc.core.types import Caller, Dialect, LlmCall, Message


def a_call(*messages: Message, user: str | None = None) -> LlmCall:
    return LlmCall(Dialect.CHAT_COMPLETIONS, "gpt", messages, user_id=user)


def key(*messages: Message) -> bytes:
    return session_key(a_call(*messages), Caller("r"))


def test_buckets_stay_what_they_are_over_versions() -> None:
    # Moving them would move every session of every running canary.
    keys = (b"", b"a", b"pin:s", "fingerprint:ü".encode())
    assert [bucket_of(key, "code", b"salt") for key in keys] == [3043, 3931, 3550, 5582]


def test_policy_salt_and_key_each_change_the_bucket() -> None:
    ways = [(b"k", "p", b"s"), (b"k2", "p", b"s"), (b"k", "p2", b"s"), (b"k", "p", b"s2"), (b"pk", "", b"s")]
    assert len({bucket_of(*way) for way in ways}) == len(ways)


def test_an_id_of_half_a_character_is_an_id() -> None:
    assert session_key(a_call(user="\ud800"), Caller("r")) == b"user:\xed\xa0\x80"
    assert bucket_of(b"k", "\ud800", b"s") in range(10_000)


def test_an_empty_pin_is_none() -> None:
    assert session_key(a_call(user="u"), Caller("r", "")) == b"user:u"


def test_a_fingerprint_ends_with_the_first_question() -> None:
    question = Message("user", "q")
    assert key(question) == key(question, Message("assistant", "a"), Message("user", "more"))
    assert key(Message("system", "s"), question) != key(question)


def test_texts_do_not_run_into_each_other() -> None:
    assert key(Message("system", "ab"), Message("user", "c")) != key(
        Message("system", "a"), Message("user", "bc")
    )


def test_a_fingerprint_reads_the_beginning_of_a_text_only() -> None:
    long = "x" * FINGERPRINT_CHARS
    assert key(Message("user", long + "a")) == key(Message("user", long + "b"))
    assert key(Message("user", long[1:] + "a")) != key(Message("user", long[1:] + "b"))


def test_without_a_users_message_the_request_stands_for_itself() -> None:
    assert key(Message("system", "s")) == b"request:r"
