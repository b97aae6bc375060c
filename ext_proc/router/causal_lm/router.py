"""`CausalLmRouter`: the model behind a thread of its own."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.prompt import BUDGET_TOKENS, Variant
from ext_proc.core.types import Message, Policy, Scores
from ext_proc.router.causal_lm.batching import Batcher
from ext_proc.router.causal_lm.engine import Answered, Engine
from ext_proc.router.causal_lm.prompting import Asked, Prompter
from ext_proc.router.causal_lm.tree import greedy

T = TypeVar("T")

_KEPT_SETS = 4
"""Prepared configurations kept: the current one, and older ones that streams in flight still hold."""

_MOST_BROUGHT_TOKENS = 4096
"""Of the constant half, for policies that a request brought along: it is read anew for each request, while
others wait. 64 policies with a sentence each take about 3000."""

GATHER_S = 0.002
"""What the first of several concurrent requests waits for the others. A pass takes 10 times that at least."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_batch` requests share a pass, `max_queue` wait for one; a conversation has `budget_tokens`."""

    max_batch: int = 8
    max_queue: int = 64
    budget_tokens: int = BUDGET_TOKENS


Load = Callable[[], tuple[Any, Any]]
"""Gives a tokenizer and a model. Errors: RouterError."""


class CausalLmRouter:
    """Implements `core.ports.Router`.

    The weights load in a thread from construction on; `prepare` and `score` wait. Tokenising and the
    passes release the GIL, so the event loop goes on.
    """

    def __init__(self, load: Load, variant: Variant = Variant.ARCHGW, limits: Limits | None = None) -> None:
        self._variant = variant
        self._limits = limits or Limits()
        self._prepared: OrderedDict[int, Asked] = OrderedDict()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="causal-lm-loader")
        self._loaded: Future[tuple[Prompter, Engine]] = self._loader.submit(self._load, load)
        self._batcher: Batcher[tuple[list[int], Asked], Answered] = Batcher(
            self._answer,
            max_batch=self._limits.max_batch,
            max_queue=self._limits.max_queue,
            gather_s=GATHER_S,
        )

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        """Tokenise the policies and compute the cache of the prompt's constant half. Errors: RouterError."""
        prompter, engine = await self._ready()
        asked = await self._translated(asyncio.to_thread(prompter.ask_about, policies))
        await self._translated(self._batcher.run_alone(lambda: engine.warm(asked)))
        # By identity, as the policies of a configuration are one object; the entry keeps it alive.
        self._prepared[id(policies)] = asked
        self._prepared.move_to_end(id(policies))
        while len(self._prepared) > _KEPT_SETS:
            self._prepared.popitem(last=False)

    async def forget(self, policies: tuple[Policy, ...]) -> None:
        asked = self._prepared.pop(id(policies), None)
        if asked is None or any(other.prefix == asked.prefix for other in self._prepared.values()):
            return
        _, engine = await self._ready()
        await self._translated(self._batcher.run_alone(lambda: engine.forget(asked)))

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        """Score a conversation. One without a user's text falls under none of the policies."""
        prompter, _ = await self._ready()
        asked = self._prepared.get(id(policies))
        if asked is not None:
            self._prepared.move_to_end(id(policies))
        else:
            # A request brought them along. Nothing of them is kept, so that no client drives out what is.
            asked = await self._translated(asyncio.to_thread(prompter.ask_about, policies))
            if len(asked.prefix) > _MOST_BROUGHT_TOKENS:
                raise RouterError(Reason.ROUTER_ERROR, "the request's own policies are too long")
        prompt = await self._translated(asyncio.to_thread(prompter.prompt, messages, asked))
        if not prompt:
            return Scores((0.0,) * len(policies), 1.0)
        answered = await self._translated(self._batcher.submit(id(asked), (prompt, asked)))
        return scores_of(answered, asked)

    async def close(self) -> None:
        """End the thread after the pass in hand; those that wait are cancelled."""
        self._batcher.close()
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _load(self, load: Load) -> tuple[Prompter, Engine]:
        tokenizer, model = load()
        return Prompter(tokenizer, self._variant, self._limits.budget_tokens), Engine(model)

    async def _ready(self) -> tuple[Prompter, Engine]:
        if self._loaded.done():
            return self._loaded.result()
        # Shielded: one that gives up waiting must not stop the loading for all.
        return await self._translated(asyncio.shield(asyncio.wrap_future(self._loaded)))

    def _answer(self, jobs: Sequence[tuple[list[int], Asked]]) -> Sequence[Answered]:
        _, engine = self._loaded.result()
        return engine.answer([prompt for prompt, _ in jobs], jobs[0][1])

    async def _translated(self, waiting: Awaitable[T]) -> T:
        try:
            return await waiting
        except RouterError:
            raise
        except Exception as error:
            # Whatever torch, transformers or a closed executor raise. Their texts could quote ours.
            text = f"the routing model failed: {type(error).__name__}"
            raise RouterError(Reason.ROUTER_ERROR, text) from error


def scores_of(answered: Answered, asked: Asked) -> Scores:
    """Probabilities of all answers among themselves, and the one that greedy decoding writes."""
    logs = [math.fsum(steps) for steps in answered.per_step]
    largest = max(logs)
    odds = [math.exp(value - largest) for value in logs]
    *per_policy, none = (value / math.fsum(odds) for value in odds)
    return Scores(tuple(per_policy), none, chosen=greedy(asked.tree, answered.per_step))
