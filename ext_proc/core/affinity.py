"""Keeping a conversation where it is: what identifies it, and which bucket that falls in."""

from __future__ import annotations

from hashlib import blake2b, sha256
from hmac import compare_digest

from ext_proc.core.types import WHOLE_PER_10K, Caller, LlmCall, Secret, Sticky

FINGERPRINT_CHARS = 65_536
"""How much of each text a fingerprint reads: a system prompt of megabytes must not cost milliseconds."""


def session_key(call: LlmCall, caller: Caller, sticky: Sticky = Sticky.SESSION) -> bytes:
    """What stays the same for all requests of one conversation, as well as can be told.

    In this order: the client's pin header, a conversation id in the body, a user id in the body, the
    system prompt and first user message (a chat client sends both again with each turn), and for a
    call that has none of these the request id, which makes it a session of its own. With `USER` a user id
    comes first; with `REQUEST` nothing but the request id counts.

    Shapes: a tagged byte string, so that a user called "x" and a conversation called "x" differ.
    """
    if sticky is Sticky.REQUEST:
        return b"request:" + caller.request_id.encode()
    if sticky is Sticky.USER and call.user_id:
        return b"user:" + call.user_id.encode("utf-8", "surrogatepass")
    if caller.pin:
        return b"pin:" + caller.pin.encode()
    if call.conversation_id:
        return b"conversation:" + call.conversation_id.encode("utf-8", "surrogatepass")
    if call.user_id:
        return b"user:" + call.user_id.encode("utf-8", "surrogatepass")
    return _fingerprint(call) or b"request:" + caller.request_id.encode()


def memory_keys(call: LlmCall, caller: Caller) -> tuple[bytes, ...]:
    """Under what the decision about a user's message is remembered; the first of them finds it again.

    The session with the message: how many of the user's there were, and the newest. That is the same for all
    calls of an agent's loop, which add the model's messages and tools' results, and another for each of
    several conversations that one user id stands for. And where the client names its session, the session
    alone, which is all that a call with nothing but tools' outputs has. Empty where that has no name.
    """
    session = session_key(call, caller)
    texts = [message.text for message in call.messages if message.role == "user"]
    is_named = caller.pin is not None or call.conversation_id is not None
    alone = (session,) if is_named else ()
    if not texts:
        return alone
    digest = blake2b(len(texts).to_bytes(4, "big"), digest_size=16)
    digest.update(texts[-1][:FINGERPRINT_CHARS].encode("utf-8", "surrogatepass"))
    return (session + digest.digest(), *alone)


def continues(call: LlmCall) -> bool:
    """Whether the user said nothing new: the last message is a tool's result or the model's own."""
    return bool(call.messages) and call.messages[-1].role != "user"


def arm_of_tester(tester_key: Secret | None, key: str, arm: str) -> str | None:
    """The arm that a request asks for, if it proves to be a tester's. Takes as long for any wrong key."""
    if tester_key is None or not arm:
        return None
    proof, known = (sha256(text.encode("utf-8", "replace")).digest() for text in (key, tester_key.reveal()))
    return arm if compare_digest(proof, known) else None


def bucket_of(key: bytes, purpose: str, salt: bytes) -> int:
    """Place a session key in one of 10,000 equal buckets.

    `purpose` (a policy's name, say) makes the buckets of two policies independent of each other. The
    hash is keyed, because a client that chooses its id could otherwise choose its arm.

    Shapes: key of any length, empty included; salt at most 64 bytes; result in range(10_000).
    Units: one bucket is 0.01 % of the sessions.
    Source: BLAKE2 (RFC 7693); docs/adr/0004-affinity-hash.md.
    """
    name = purpose.encode("utf-8", "surrogatepass")
    digest = blake2b(len(name).to_bytes(4, "big") + name + key, digest_size=8, key=salt).digest()
    return int.from_bytes(digest, "big") * WHOLE_PER_10K >> 64


def _fingerprint(call: LlmCall) -> bytes | None:
    digest = blake2b(digest_size=16)
    for message in call.messages:
        text = message.text[:FINGERPRINT_CHARS].encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(4, "big") + text)
        if message.role == "user":
            return b"fingerprint:" + digest.digest()
    return None
