"""The router around the engine: concurrent conversations, inline policies, failures that quote nothing."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.types import Message, Policy
from ext_proc.router.causal_lm.router import CausalLmRouter, Limits
from tests.support import tiny_lm

POLICIES, LESSONS = tiny_lm.POLICIES, tiny_lm.LESSONS
TRAVEL = 3


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


async def test_concurrent_conversations_each_get_their_own_answer(taught: tuple[Any, Any]) -> None:
    router = CausalLmRouter(lambda: taught)
    await router.prepare(POLICIES)
    names = [*(policy.name for policy in POLICIES), None]
    asked = LESSONS * 4
    scores = await asyncio.gather(*(router.score(user(text), POLICIES) for text, _ in asked))
    for (_, name), found in zip(asked, scores, strict=True):
        assert found.chosen is not None
        assert names[found.chosen] == name
    await router.close()


async def test_policies_that_were_not_prepared_are_scored_alike(taught: tuple[Any, Any]) -> None:
    router = CausalLmRouter(lambda: taught)
    await router.prepare(POLICIES)
    known = await router.score(user("book a flight"), POLICIES)
    inline = await router.score(user("book a flight"), (*POLICIES[:-1], POLICIES[-1]))
    assert inline.per_policy == pytest.approx(known.per_policy, abs=1e-4)
    await router.close()


async def test_policies_brought_along_that_would_hold_up_the_others_are_refused(
    taught: tuple[Any, Any],
) -> None:
    router = CausalLmRouter(lambda: taught)
    brought = tuple(Policy(f"policy {number}", "an unusual wish " * 60) for number in range(40))
    with pytest.raises(RouterError, match="too long"):
        await router.score(user("book a flight"), brought)
    await router.close()


async def test_no_user_text_is_none_of_the_policies(taught: tuple[Any, Any]) -> None:
    router = CausalLmRouter(lambda: taught)
    scores = await router.score((Message("assistant", "hello"),), POLICIES)
    assert (scores.per_policy, scores.none) == ((0.0,) * len(POLICIES), 1.0)
    await router.close()


async def test_one_that_gives_up_while_the_weights_load_does_not_stop_them(taught: tuple[Any, Any]) -> None:
    gate = threading.Event()

    def slow() -> tuple[Any, Any]:
        assert gate.wait(30)
        return taught

    router = CausalLmRouter(slow)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await router.prepare(POLICIES)
    gate.set()
    await router.prepare(POLICIES)
    assert (await router.score(user("book a flight"), POLICIES)).chosen == TRAVEL
    await router.close()


async def test_a_failing_model_is_an_error_that_quotes_nothing(taught: tuple[Any, Any]) -> None:
    class Broken:
        def __call__(self, text: str, **_: Any) -> Any:
            raise ValueError(f"cannot tokenise {text}")

        apply_chat_template = __call__

    router = CausalLmRouter(lambda: (Broken(), taught[1]))
    with pytest.raises(RouterError) as caught:
        await router.score(user("pl4nted"), POLICIES)
    assert caught.value.reason is Reason.ROUTER_ERROR
    assert "pl4nted" not in str(caught.value)
    await router.close()


async def test_weights_that_do_not_load_fail_the_preparation() -> None:
    def missing() -> tuple[Any, Any]:
        raise RouterError(Reason.ROUTER_ERROR, "no such model")

    router = CausalLmRouter(missing, limits=Limits(max_batch=1))
    with pytest.raises(RouterError, match="no such model"):
        await router.prepare(POLICIES)
    await router.close()
