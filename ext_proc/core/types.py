"""The frozen values that the core's functions take and give, and that every neighbour shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ext_proc.core.errors import Reason

WHOLE_PER_10K = 10_000
"""Buckets that a split divides: one is 0.01 % of the sessions."""


class Dialect(StrEnum):
    """The API shapes that this server reads. Source: the OpenAI and Anthropic API references."""

    CHAT_COMPLETIONS = "chat_completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `role` as the client wrote it (`developer` included); `text` is the text parts, joined."""

    role: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the router chooses among. `domain` names the broader policy that this one narrows, if any.

    `examples` are messages that fall under it, `not_examples` some that seem to and do not: a router
    may use them or not.
    """

    name: str
    description: str
    domain: str | None = None
    examples: tuple[str, ...] = ()
    not_examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InlinePolicy:
    """A policy that a request brought along, with the model names it ranks."""

    policy: Policy
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a call asks of whoever answers it. `tokens`: about what its texts and its answer may take."""

    dialect: Dialect
    images: bool = False
    tools: bool = False
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Supports:
    """What a target serves, as the file declares it. Nothing declared: everything."""

    dialects: frozenset[Dialect] | None = None
    images: bool = True
    tools: bool = True
    context_tokens: int | None = None

    def serves(self, needs: Needs) -> bool:
        return (
            (self.dialects is None or needs.dialect in self.dialects)
            and (self.images or not needs.images)
            and (self.tools or not needs.tools)
            and (self.context_tokens is None or needs.tokens <= self.context_tokens)
        )


@dataclass(frozen=True, slots=True)
class LlmCall:
    """What was read of one request body.

    `messages` holds every turn in order, system and tool turns too. `conversation_id` and `user_id`
    are whatever the dialect offers. `inline_policies` is None when the request brought none.
    `max_tokens` is how long its answer may be, 0 where it does not say.
    `is_stateful`: it goes on with what the provider keeps, so a copy of it would change or miss that.
    """

    dialect: Dialect
    model: str | None
    messages: tuple[Message, ...]
    stream: bool = False
    conversation_id: str | None = None
    user_id: str | None = None
    inline_policies: tuple[InlinePolicy, ...] | None = None
    has_images: bool = False
    has_tools: bool = False
    max_tokens: int = 0
    is_stateful: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as it is not in the body.

    `pin` is the session's name, if the client gives it one; `arm` the arm that a trusted tester asks for.
    """

    request_id: str = ""
    pin: str | None = None
    arm: str | None = None


class Sticky(StrEnum):
    """What stays on one arm of a split."""

    SESSION = "session"
    USER = "user"
    REQUEST = "request"


class Secret:
    """A string that does not show itself: only `.reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"


@dataclass(frozen=True, slots=True)
class Credential:
    """The header that authenticates at a provider, e.g. `authorization` with `Bearer …`."""

    header: str
    value: Secret


@dataclass(frozen=True, slots=True)
class Price:
    """What a provider takes for tokens. Units: per million tokens, in whatever currency the file means."""

    input_per_million: float
    output_per_million: float


@dataclass(frozen=True, slots=True)
class Target:
    """Provider plus model: the smallest thing a decision picks.

    `name` is the one in the configuration; `model` the id written into the body; `cluster` Envoy's
    name for the hosts; `authority` and `path_prefix` come from `base_url` (None: leave as the client
    sent it). `origin` is where its hosts are, whom its key is meant for, as `https://host:port`. Without
    `has_address` only the mesh knows its hosts, so it has no place in a chain.
    """

    name: str
    model: str
    cluster: str
    authority: str | None = None
    path_prefix: str | None = None
    credential: Credential | None = None
    passthrough_auth: bool = False
    price: Price | None = None
    supports: Supports = Supports()
    has_address: bool = True
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """When Envoy goes on to the next target of a chain.

    `statuses` are those of an answer; `server_errors` adds all of 5xx. An answer that never begins
    counts as well: refused, reset, or later than `per_try_timeout_s`. `attempts` bounds the targets
    tried. A target that failed `ejection_failures` times in a row is passed over for `ejection_s`.
    """

    statuses: tuple[int, ...] = (429,)
    server_errors: bool = True
    per_try_timeout_s: float = 120.0
    attempts: int = 32
    ejection_failures: int = 5
    ejection_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Chain:
    """Targets in the order in which Envoy tries them: one cluster, a priority for each target."""

    cluster: str
    targets: tuple[Target, ...]
    retry: Retry


@dataclass(frozen=True, slots=True)
class Arm:
    """One target of a split. The first arm of a route is `baseline`, then `canary`, `canary-2` …"""

    name: str
    target: Target
    weight_per_10k: int


@dataclass(frozen=True, slots=True)
class Shadow:
    """A target that gets a copy of some sessions' requests, within bounds.

    A copy beyond a bound is not made. `max_concurrent` counts copies without an answer yet,
    `max_per_minute` those of the last minute (None: as many as the percentage gives), `max_body_bytes`
    is the largest request copied. `noise_floor`: the primary's own model gets a copy too.
    """

    target: Target
    percent_per_10k: int
    max_concurrent: int = 64
    max_per_minute: int | None = None
    max_body_bytes: int = 1 << 20
    noise_floor: bool = False

    @property
    def cluster(self) -> str:
        return copies_cluster(self.target)


def copies_cluster(target: Target) -> str:
    """The Envoy cluster that takes a target's copies: its own, because a copy needs another body and key.

    A mirrored request carries the primary's body and credential; an ext_proc filter on this cluster
    writes the target's.
    """
    return f"arch-shadow/{target.name}"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a policy's conversations go. The arms' weights sum to `WHOLE_PER_10K`.

    `observed`: the answers are looked at (status, times, tokens), which costs a second stream each.
    `fallbacks` are tried, in order, when an arm's own target fails or cannot serve the call.
    `envoy_splits`: Envoy holds the weights and picks the arm, by the bucket that it is told. The ids in
    `always` get the canary whatever its weight, those in `never` the baseline.
    """

    policy: Policy
    arms: tuple[Arm, ...]
    shadows: tuple[Shadow, ...] = ()
    fallbacks: tuple[Target, ...] = ()
    observed: bool = False
    retry: Retry = Retry()
    envoy_splits: bool = False
    sticky: Sticky = Sticky.SESSION
    always: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a router must be for its policy to count.

    `threshold` is the least probability of the policy, `margin` the least by which it leads the next
    answer, "none of them" included. Units: probabilities.
    """

    threshold: float = 0.0
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a decision depends on besides the request: one configuration, checked and resolved.

    `policies` keeps the file's order. `targets` is by name, `aliases` by alias; `models` finds a
    target by the bare model id where that is unambiguous. `on_failure` takes what the router could
    not decide, `default` everything no policy matched or nobody could read. `revision` changes with
    any part of the configuration that can change a decision. `chains` holds every chain that Envoy has
    a cluster for, by that cluster's name; `retry` counts for the policies that requests bring along.
    `tester_key` is what a tester proves to be one with; None: there are none.
    """

    revision: str
    policies: tuple[Policy, ...]
    routes: Mapping[str, Route]
    targets: Mapping[str, Target]
    models: Mapping[str, Target]
    aliases: Mapping[str, Target]
    default: Target
    on_failure: Target
    salt: bytes = field(repr=False)
    chains: Mapping[str, Chain] = field(default_factory=dict)
    retry: Retry = Retry()
    confidence: Confidence = Confidence()
    tester_key: Secret | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """A router's answer: a probability per policy, in the order asked, and for none of them.

    `chosen` is what the router itself answers, where that need not be the most probable: an index into
    the policies, or their number for none of them. A language model that writes its answer token by token
    may begin on the likeliest branch and end on one of its less likely leaves.

    Shapes: `per_policy` as long as the policies asked. Units: all values in [0, 1], summing to 1.
    """

    per_policy: tuple[float, ...]
    none: float
    chosen: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the router said of one conversation, or why it could not.

    `policy` is None when none fits or when `failure` says why there is no answer. `scores` pairs
    each policy's name with its probability, in the file's order.
    """

    policy: str | None = None
    scores: tuple[tuple[str, float], ...] = ()
    none: float = 0.0
    failure: Reason | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one request goes, and why. `policy` is None when none decided it.

    `chain` begins with the target; None: there is nobody else to try. `arm` is None where no split
    decided, or where the target of some arm could not serve the call: such a call compares no arms.
    `envoy_splits`: arm and target are what the file's weights say, and Envoy's own may have changed since.
    `observed` asks for the answers to be looked at; `pair` is the name under which they then meet. `inline`:
    the policy came with the request, so its name is a client's word.
    """

    target: Target
    reason: Reason
    policy: str | None = None
    arm: str | None = None
    bucket: int | None = None
    shadow: Shadow | None = None
    observed: bool = False
    chain: Chain | None = None
    envoy_splits: bool = False
    pair: str | None = None
    inline: bool = False

    @property
    def cluster(self) -> str:
        """The Envoy cluster that takes the request."""
        return self.chain.cluster if self.chain is not None else self.target.cluster

    @property
    def noise(self) -> Target | None:
        """The target that gets a second copy of what it answers, for the noise floor; None without one."""
        shadow, target = self.shadow, self.target
        if shadow is None or not shadow.noise_floor or self.arm is None or shadow.target.name == target.name:
            return None
        return target


class CopyRefusal(StrEnum):
    """Why a sampled request was not copied: a metric label."""

    CONCURRENT = "concurrent"
    RATE = "rate"
    BODY = "body"
    STATEFUL = "stateful"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. `verdict` and `router_s` are None when no router was asked.

    `refused` is the shadow that would have got a copy, and why it did not.
    """

    decision: Decision
    total_s: float
    verdict: Verdict | None = None
    router_s: float | None = None
    refused: tuple[Shadow, CopyRefusal] | None = None
