"""`EmbeddedRouter`: the engine behind a thread of its own."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.types import Message, Policy, Scores
from ext_proc.router.embedded import scoring
from ext_proc.router.embedded.engine import Engine
from ext_proc.router.embedded.scoring import PolicySet
from ext_proc.router.embedded.tuning import SHIPPED, read_tuning
from ext_proc.router.embedded.turns import choose_turns

P = ParamSpec("P")
T = TypeVar("T")

_KEPT_SETS = 4
"""Prepared configurations kept: the current one, and older ones that streams in flight still hold."""


class EmbeddedRouter:
    """Implements `core.ports.Router`.

    One thread does the work. Tokenising and encoding release the GIL, so the event loop goes on; a
    second thread would only take a core from it. Whoever is cancelled before the thread came to them
    costs nothing. The weights load in that thread, from construction on; `prepare` and `score` wait.
    """

    def __init__(self, weights: Path = SHIPPED, threshold: float | None = None) -> None:
        """Read the settings in `weights` and begin to load the rest.

        Units: `threshold` as in `scoring.score`. Errors: RouterError when a file is missing.
        """
        self._tuning = read_tuning(weights)
        self._threshold = threshold
        self._prepared: OrderedDict[int, tuple[tuple[Policy, ...], PolicySet]] = OrderedDict()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="embedded-router")
        self._engine: Future[Engine] = self._executor.submit(Engine, weights, self._tuning)

    async def prepare(self, policies: tuple[Policy, ...]) -> None:
        """Encode the policies. Errors: RouterError, for weights that could not be loaded too."""
        asked = await self._policy_set(policies)
        # By identity: hashing a thousand policies would cost more than scoring them. The entry keeps
        # the tuple alive, so its id stays its own.
        self._prepared[id(policies)] = policies, asked
        self._prepared.move_to_end(id(policies))
        while len(self._prepared) > _KEPT_SETS:
            self._prepared.popitem(last=False)

    async def forget(self, policies: tuple[Policy, ...]) -> None:
        self._prepared.pop(id(policies), None)

    async def score(self, messages: tuple[Message, ...], policies: tuple[Policy, ...]) -> Scores:
        """Score a conversation. One without a user's text falls under none of the policies."""
        turns = choose_turns(messages, self._tuning)
        if not turns:
            return Scores((0.0,) * len(policies), 1.0)
        kept = self._prepared.get(id(policies))
        if kept:
            self._prepared.move_to_end(id(policies))
        asked = kept[1] if kept else await self._policy_set(policies)
        conversation = await self._run(Engine.conversation, turns)
        return scoring.score(conversation, asked, self._tuning, self._threshold)

    async def close(self) -> None:
        """End the thread after the job in hand; drop the jobs that wait."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _policy_set(self, policies: tuple[Policy, ...]) -> PolicySet:
        # A job each, so that a reload with a thousand policies does not hold up decisions meanwhile.
        rows = [await self._run(Engine.policy, policy) for policy in policies]
        return scoring.build_policy_set(rows)

    async def _run(self, job: Callable[Concatenate[Engine, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        def in_thread() -> T:
            # Submitted first and run in order, so the engine is there or has failed.
            return job(self._engine.result(), *args, **kwargs)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, in_thread)
        except RouterError:
            raise
        except Exception as error:
            # Whatever onnxruntime, tokenizers or a closed executor raise. Their texts could quote ours.
            text = f"the embedded router failed: {type(error).__name__}"
            raise RouterError(Reason.ROUTER_ERROR, text) from error
