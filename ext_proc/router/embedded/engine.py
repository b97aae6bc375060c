"""What lives in the router's thread: the encoder, and the vectors it gave before."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ext_proc.core.types import Policy
from ext_proc.router.embedded import scoring
from ext_proc.router.embedded.encoder import shared_encoder
from ext_proc.router.embedded.scoring import PolicySet, Vectors
from ext_proc.router.embedded.tuning import Tuning
from ext_proc.router.embedded.turns import Turn

_MARK = re.compile(r"\{(?:name|description|domain)\}")
_KEPT_VECTORS = 4096
"""Vectors of 1.5 kB kept of turns, and as many of policies: 12 MB at most."""


class Engine:
    """Encodes turns and policies. Not for two threads at once."""

    def __init__(self, weights: Path, tuning: Tuning) -> None:
        """Load the weights. Errors: RouterError."""
        self._encoder = shared_encoder(weights)
        self._tuning = tuning
        self._turns = KeptVectors(_KEPT_VECTORS)
        self._policies = KeptVectors(_KEPT_VECTORS)
        self._topics: Vectors = np.stack([self._encode(text, tuning.max_tokens) for text in tuning.topics])

    def conversation(self, turns: Sequence[Turn]) -> Vectors:
        """One vector for all turns. Those of earlier requests are kept, so a dialogue costs its news."""
        return scoring.blend([self._turn(turn) for turn in turns], [turn.weight for turn in turns])

    def policy(self, policy: Policy) -> Vectors:
        """One vector for a policy: the mean of its phrasings."""
        key = _key(policy.name, policy.description, policy.domain or "")
        return self._policies.get(key, lambda: self._encode_policy(policy))

    def policy_set(self, rows: Sequence[Vectors]) -> PolicySet:
        """The policies of one question, ready for scoring."""
        return scoring.build_policy_set(np.stack(rows), self._topics, self._tuning)

    def _turn(self, turn: Turn) -> Vectors:
        key = _key(turn.text, str(turn.max_tokens))
        return self._turns.get(key, lambda: self._encode(turn.text, turn.max_tokens))

    def _encode_policy(self, policy: Policy) -> Vectors:
        texts = phrase(policy, self._tuning.phrasings)
        vectors = [self._encode(text, self._tuning.max_tokens) for text in texts]
        return scoring.blend(vectors, [1.0] * len(vectors))

    def _encode(self, text: str, max_tokens: int) -> Vectors:
        return self._encoder.encode(text, max_tokens, self._tuning.head_share)


class KeptVectors:
    """The vectors used last, by key, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._vectors: OrderedDict[bytes, Vectors] = OrderedDict()

    def get(self, key: bytes, make: Callable[[], Vectors]) -> Vectors:
        """The vector under this key, made if it is not there."""
        if (vector := self._vectors.get(key)) is None:
            vector = self._vectors[key] = make()
            if len(self._vectors) > self._size:
                self._vectors.popitem(last=False)
        else:
            self._vectors.move_to_end(key)
        return vector


def phrase(policy: Policy, phrasings: Sequence[str]) -> list[str]:
    """The ways to state a policy, without those that name what it lacks: a description, a domain.

    Names are often identifiers, so `_` and `-` become spaces.
    """
    name = policy.name.replace("_", " ").replace("-", " ").strip()
    parts = {"{name}": name, "{description}": policy.description.strip(), "{domain}": policy.domain or ""}
    lacking = [mark for mark, part in parts.items() if not part]
    usable = [phrasing for phrasing in phrasings if not any(mark in phrasing for mark in lacking)]
    # One pass, because a name may hold braces.
    return [_MARK.sub(lambda match: parts[match[0]], phrasing) for phrasing in usable] or [policy.name]


def _key(*texts: str) -> bytes:
    # A digest, so that no conversation is held in memory longer than its request.
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.digest()
