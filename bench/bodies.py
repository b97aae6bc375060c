"""The requests that contenders send, and the answer that proves each went the way it is measured on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count
from random import Random

from bench.load import post

PATH = "/v1/chat/completions"
DIFFERENT = 4000
"""More conversations than one round can ask."""
KEPT = 200
"""Conversations that come again and again: the router answers each once, its cache from then on."""
SMALL_BYTES = 600
_TURN_TOKENS = 64

_SENTENCE = "please explain how this function sorts the list of numbers and why it is slow for long inputs "
_STORY = "write a story and a poem about the sea, the wind and an old lighthouse, number"

MIX = (
    (512, 300),
    (2 << 10, 300),
    (8 << 10, 200),
    (32 << 10, 120),
    (128 << 10, 60),
    (1 << 20, 15),
    (4 << 20, 5),
)
"""Bytes of a body, and of a thousand how many have them."""
STREAMED_SHARE = 0.1

_number = count()


def body(text: str, *, model: str = "gpt-4o", padding: int = 0, is_streamed: bool = False) -> bytes:
    """One turn of a user; before it, if `padding` asks for it, one with so many characters."""
    messages = [{"role": "user", "content": text}]
    if padding > 0:
        messages[:0] = [
            {"role": "user", "content": "x" * padding},
            {"role": "assistant", "content": "I have read it."},
        ]
    fields = {"model": model, "messages": messages, "stream": is_streamed}
    return json.dumps(fields).encode()


def pinned(size: int, *, is_streamed: bool = False) -> bytes:
    """A request with a body of about so many bytes that names its model."""
    empty = len(body("x", model="bench/other"))
    return post(PATH, body("x" * max(1, size - empty), model="bench/other"), is_streamed=is_streamed)


def asked(tokens: int, how_many: int = DIFFERENT) -> list[bytes]:
    """Conversations of about so many tokens, in turns of up to 64, that nobody has asked before."""
    return [post(PATH, _conversation(tokens)) for _ in range(how_many)]


def _conversation(tokens: int) -> bytes:
    turns = max(1, tokens // _TURN_TOKENS)
    roles = [("user", "assistant")[(turns - 1 - turn) % 2] for turn in range(turns)]
    words = (_SENTENCE * 4).split()[: _TURN_TOKENS - 5]
    messages = [{"role": role, "content": f"{next(_number)} " + " ".join(words)} for role in roles]
    return json.dumps({"model": "gpt-4o", "messages": messages}).encode()


def stories() -> list[bytes]:
    """Sessions of the policy that is split, copied and observed."""
    return [post(PATH, body(f"{_STORY} {number}")) for number in range(KEPT)]


def mix(how_many: int = 1000) -> list[bytes]:
    """Pinned requests of all sizes, some with a streamed answer, in an order that is the same each time."""
    sizes = [size for size, per_mille in MIX for _ in range(per_mille * how_many // 1000)]
    random = Random(7)
    random.shuffle(sizes)
    made = {
        (size, streamed): pinned(size, is_streamed=streamed) for size, _ in MIX for streamed in (True, False)
    }
    return [made[size, random.random() < STREAMED_SHARE] for size in sizes]


def reason(word: str) -> bytes:
    """What the answer's head must hold."""
    return f"x-arch-reason: {word}\r\n".encode()


def shuffled(requests: Iterable[bytes], seed: int = 7) -> list[bytes]:
    """The same requests in another order, which is the same each time."""
    found = list(requests)
    Random(seed).shuffle(found)
    return found
