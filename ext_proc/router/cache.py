"""Verdicts given before, by what was asked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b

from ext_proc.core.settings import MemorySettings
from ext_proc.core.types import Message, Policy, Verdict

MAX_KEY_CHARS = 1 << 18
"""A conversation that is longer is not looked up: its digest would take the event loop a millisecond."""
MAX_KEPT_SCORES = 500_000
"""Of all verdicts kept together: about 50 MB. With a thousand policies, that is 500 verdicts."""
_ROLES = frozenset({"user", "assistant"})


class VerdictCache:
    """The verdicts used last, for a while. It never holds a failure, nor any of a conversation's text."""

    def __init__(self, settings: MemorySettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, Verdict]] = OrderedDict()
        self._scores = 0

    def get(self, key: bytes) -> Verdict | None:
        entry = self._kept.get(key)
        if entry is None:
            return None
        expires, verdict = entry
        if expires <= self._clock():
            self._forget(key)
            return None
        self._kept.move_to_end(key)
        return verdict

    def put(self, key: bytes, verdict: Verdict) -> None:
        if verdict.failure is not None or not self._settings.size:
            return
        if key in self._kept:
            self._forget(key)
        self._kept[key] = self._clock() + self._settings.ttl_s, verdict
        self._scores += len(verdict.scores)
        while len(self._kept) > self._settings.size or self._scores > MAX_KEPT_SCORES:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: bytes) -> None:
        _, verdict = self._kept.pop(key)
        self._scores -= len(verdict.scores)


def policies_digest(policies: tuple[Policy, ...]) -> bytes:
    """What tells two sets of policies apart."""
    digest = blake2b(digest_size=16)
    for policy in policies:
        parts = (policy.name, policy.description, policy.domain or "")
        _add(digest, (*parts, str(len(policy.examples)), *policy.examples, *policy.not_examples, ""))
    return digest.digest()


def question_digest(messages: tuple[Message, ...], policies: bytes) -> bytes | None:
    """What tells two questions apart; None for one that is too long to be told.

    Of a conversation counts what routers read: the texts of users and assistants, up to the newest of a
    user, without the white space around them.
    """
    read = [message for message in messages if message.role in _ROLES]
    while read and read[-1].role != "user":
        read.pop()
    if sum(len(message.text) for message in read) > MAX_KEY_CHARS:
        return None
    digest = blake2b(policies, digest_size=16)
    for message in read:
        _add(digest, (message.role, message.text.strip()))
    return digest.digest()


def _add(digest: blake2b, texts: Iterable[str]) -> None:
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
