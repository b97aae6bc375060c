"""What was seen of one answer, and what two answers to the same request have in common.

Numbers, names and flags only: an answer's text is never in here, so these values may be counted, logged,
stored and shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Whose answer it is. `NOISE`: a copy to the primary's own model, to see it disagree with itself."""

    PRIMARY = "primary"
    SHADOW = "shadow"
    NOISE = "noise"


@dataclass(frozen=True, slots=True)
class Observation:
    """One answer of one target.

    `arm` is empty for a copy and where no split decided. `status` is 0 when there was no answer at all.
    `broken` says that an answer began well and did not end well: an error event or no last event in a
    stream, JSON that is not whole, or a copy's answer that the provider cut off. `cut` says that a primary's
    answer stopped early, or never began, and nobody knows by whom, most often by a client that left: no
    error, and its tokens and `latency_s` are those of what had come. Should it have been the provider, a
    second observation says so (`amends`).
    `fallback` says that another target than the first choice, `decided`, answered. `unread` says that looking
    at its body was given up, so that its tokens are not known and nothing is said against it.

    Units: seconds from the request's last byte (`latency_s` to the answer's last byte, `first_byte_s` to
    its first body byte); `at` in seconds since the epoch; `cost` in the currency of the file's prices.
    `bucket` is the session's in its policy's split (`affinity.bucket_of`): the requests of one session
    share it, so that statistics can tell ten requests of one session from ten sessions.
    None: not known, never a guess.
    """

    request_id: str
    policy: str
    arm: str
    target: str
    role: Role
    status: int
    latency_s: float
    at: float
    first_byte_s: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    broken: bool = False
    fallback: bool = False
    bucket: int | None = None
    cut: bool = False
    decided: str = ""
    unread: bool = False

    @property
    def is_error(self) -> bool:
        """Whether the provider failed: no answer, 429, 5xx, or an answer that broke off.

        Other 4xx are the client's doing, and both arms of a split get their share of them.
        """
        return self.broken or self.status == 429 or self.status >= 500 or (not self.status and not self.cut)

    @property
    def is_unanswered(self) -> bool:
        """Whether the client left before the answer began: Envoy answers for a provider that does not."""
        return self.cut and not self.status

    @property
    def amends(self) -> bool:
        """Whether this only adds to an observation before it: the provider broke that answer off."""
        return self.broken and self.cut

    @property
    def first_choice_failed(self) -> bool | None:
        """Whether the target that was chosen failed, be it that another one saved the answer.

        None: nobody knows, because the answer was cut.
        """
        if self.is_error or self.fallback:
            return True
        return None if self.cut else False


class Preference(StrEnum):
    """What a judge preferred, not knowing which answer was whose."""

    PRIMARY = "primary"
    SHADOW = "shadow"
    TIE = "tie"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A primary's answer beside a copy's, to the same request.

    `exact`: the same text, white space aside. `similarity`: the cosine of their embeddings, -1 to 1.
    `length_ratio`: the copy's characters by the primary's. `structured_equal`: the same JSON and the
    same tool calls, where both answers have some. None: this could not be compared, as when one of the
    two failed. `shadow.role` tells a shadow from the noise floor.
    """

    primary: Observation
    shadow: Observation
    at: float
    exact: bool | None = None
    similarity: float | None = None
    length_ratio: float | None = None
    structured_equal: bool | None = None
    primary_refused: bool | None = None
    shadow_refused: bool | None = None
    judge: Preference | None = None

    @property
    def policy(self) -> str:
        return self.primary.policy

    @property
    def shadow_target(self) -> str:
        return self.shadow.target
