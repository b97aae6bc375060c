"""Who is measured against whom, with which requests, over how many connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench import bodies
from bench.mesh import Mesh, Side

ALONE, PINNED, LITELLM = "Envoy alone", "pinned model", "LiteLLM proxy"
EMBEDDED = "embedded router, {} tokens"
TWO = "two workers, "
CONVERSATIONS = (64, 256, 1024)
SIZES = (64 << 10, 1 << 20, 4 << 20)


@dataclass(frozen=True)
class Contender:
    """One way to send requests. `requests` makes those of one round: no cache may know what it should not."""

    name: str
    side: Side
    requests: Callable[[], list[bytes]]
    expected: bytes
    baseline: str | None = ALONE


@dataclass(frozen=True)
class Group:
    """Contenders that take turns, so that a machine whose speed drifts slows them alike."""

    name: str
    connections: tuple[int, ...]
    contenders: tuple[Contender, ...]


def groups(mesh: Mesh, litellm: Side | None, *, is_quick: bool) -> list[Group]:
    """Everything that `make bench` measures through Envoy."""
    small, mixed = [bodies.pinned(bodies.SMALL_BYTES)], bodies.mix()
    kept, stories = bodies.asked(64, bodies.KEPT), bodies.stories()
    one, two = mesh.routed[1], mesh.routed[2]
    pinned, policy = bodies.reason("pinned"), bodies.reason("policy")
    story = b"x-arch-policy: creative writing\r\n"
    alone = bodies.reason("server_unavailable")

    def peers(requests: list[bytes]) -> tuple[Contender, ...]:
        if litellm is None:
            return ()
        return (Contender(LITELLM, litellm, lambda: requests, b""),)

    small_bodies = (
        Contender(ALONE, mesh.plain, lambda: small, alone, None),
        Contender(PINNED, one, lambda: small, pinned),
        Contender("decision from the cache", one, lambda: kept, policy),
        *(
            Contender(EMBEDDED.format(f"{tokens:,}"), one, lambda tokens=tokens: bodies.asked(tokens), policy)
            for tokens in CONVERSATIONS
        ),
        Contender("split, shadow and observed answers", one, lambda: stories, story),
        Contender(TWO + PINNED, two, lambda: small, pinned),
        Contender(TWO + EMBEDDED.format(64), two, lambda: bodies.asked(64), policy),
        *peers(small),
    )
    mix = (
        Contender(ALONE, mesh.plain, lambda: mixed, alone, None),
        Contender(PINNED, one, lambda: mixed, pinned),
        *peers(mixed),
    )
    found = [
        Group(f"{bodies.SMALL_BYTES} bytes", (1, 16) if is_quick else (1, 16, 64), small_bodies),
        Group("0.5 KB to 4 MB, 10 % streamed", (16,) if is_quick else (1, 16), mix),
    ]
    for size in SIZES:
        large = [bodies.pinned(size)]
        sides: Mapping[str, tuple[Side, bytes]] = {ALONE: (mesh.plain, alone), PINNED: (one, pinned)}
        found.append(
            Group(
                f"{size >> 10:,} KiB",
                (1,),
                tuple(
                    Contender(
                        name, side, lambda large=large: large, expected, None if name == ALONE else ALONE
                    )
                    for name, (side, expected) in sides.items()
                ),
            )
        )
    return found
