"""What lives in the router's thread: the encoder, and what it said of policies before."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ext_proc.core.types import Message, Policy
from ext_proc.router.embedded import scoring
from ext_proc.router.embedded.encoder import shared_encoder
from ext_proc.router.embedded.phrasing import items, phrase, readable
from ext_proc.router.embedded.scoring import Asked, Encoded, Vectors
from ext_proc.router.embedded.tuning import Tuning
from ext_proc.router.embedded.turns import Turn, choose_turns

_KEPT_POLICIES = 4096
"""Of about 6 kB each, 20 kB with a long list in the description."""


class Engine:
    """Encodes conversations and policies. Not for two threads at once."""

    def __init__(self, weights: Path, tuning: Tuning) -> None:
        """Load the weights. Errors: RouterError."""
        self._encoder = shared_encoder(weights, tuning)
        self._tuning = tuning
        self._policies: OrderedDict[bytes, Asked] = OrderedDict()

    def conversation(self, turns: Sequence[Turn]) -> Encoded:
        """Encode the turns of a conversation."""
        return self._encoder.conversation(turns)

    def policy(self, policy: Policy) -> Asked:
        """Encode a policy, or remember: a configuration that is read anew costs what changed."""
        texts = (policy.name, policy.description, policy.domain or "")
        key = _key(*texts, str(len(policy.examples)), *policy.examples, *policy.not_examples)
        if (found := self._policies.get(key)) is None:
            found = self._policies[key] = self._encode_policy(policy)
            if len(self._policies) > _KEPT_POLICIES:
                self._policies.popitem(last=False)
        else:
            self._policies.move_to_end(key)
        return found

    def _encode_policy(self, policy: Policy) -> Asked:
        phrased = [self._encoder.policy(text) for text in phrase(policy, self._tuning.phrasings)]
        listed = [self._encoder.policy(text) for text in items(readable(policy.name), policy.description)]
        return scoring.asked_of(
            phrased,
            listed,
            self._messages(policy.examples),
            self._messages(policy.not_examples),
            self._encoder.message(readable(policy.name)).none,
        )

    def _messages(self, texts: Sequence[str]) -> Vectors:
        """Messages of users, each a conversation of its own. Shapes: [texts, hidden]."""
        turns = [choose_turns((Message("user", text),), self._tuning) for text in texts]
        vectors = [self._encoder.conversation(each).vector for each in turns if each]
        return np.stack(vectors) if vectors else np.zeros((0, self._encoder.hidden), np.float32)


def _key(*texts: str) -> bytes:
    # A digest, so that no conversation is held in memory longer than its request.
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.digest()
