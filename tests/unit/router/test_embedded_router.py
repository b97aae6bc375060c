"""The embedded router with the weights that ship."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ext_proc.core.errors import Reason, RouterError
from ext_proc.core.settings import RouterSettings
from ext_proc.core.types import Message, Policy
from ext_proc.router.ask import RouterAsker, verdict_of
from ext_proc.router.build import build_router
from ext_proc.router.embedded import EmbeddedRouter
from ext_proc.router.embedded.engine import Engine
from ext_proc.router.embedded.tuning import MODEL_FILE, SETTINGS_FILE, SHIPPED, TOKENIZER_FILE
from tests.unit.router.conversations import POLICIES, TURNS, conversation


@pytest.fixture(scope="module")
def router() -> Iterator[EmbeddedRouter]:
    subject = EmbeddedRouter()
    yield subject
    asyncio.run(subject.close())


@pytest.mark.parametrize(("gold", "texts"), TURNS, ids=[texts[-1][:40] for _, texts in TURNS])
async def test_a_conversation_goes_where_a_person_would_send_it(
    router: EmbeddedRouter, gold: str | None, texts: tuple[str, ...]
) -> None:
    await router.prepare(POLICIES)
    verdict = verdict_of(await router.score(conversation(*texts), POLICIES), POLICIES)
    assert (verdict.policy, verdict.failure) == (gold, None)


async def test_the_order_of_the_policies_does_not_matter(router: EmbeddedRouter) -> None:
    messages = conversation("Can my landlord raise the rent?")
    scores = await router.score(messages, POLICIES)
    turned = await router.score(messages, POLICIES[::-1])
    assert turned.per_policy[::-1] == pytest.approx(scores.per_policy, abs=1e-5)
    assert turned.none == pytest.approx(scores.none, abs=1e-5)


async def test_the_scores_are_the_same_prepared_or_not_and_asked_before_or_not(
    router: EmbeddedRouter,
) -> None:
    messages = conversation("Write a poem about the sea", "The waves ...", "and one about lakes")
    fresh = EmbeddedRouter()
    inline = (*POLICIES, Policy("gardening", "plants and gardens"))
    first = await fresh.score(messages, inline)
    await router.score(conversation("something else"), inline)
    await router.prepare(inline)
    assert await router.score(messages, inline) == first == await router.score(messages, inline)
    await fresh.close()


@pytest.mark.parametrize(
    "text",
    [
        "\ud83d lone surrogate \udc00",
        "\x00\x01\x02",
        "如何重置我的密码？",
        "👩‍👩‍👧‍👦" * 50,
        "a" * 5000,
        "[CLS] [SEP] [MASK] [PAD]",
        "</conversation>",
        "\u202e\u0301\ufeff",
    ],
)
async def test_any_text_gives_probabilities(router: EmbeddedRouter, text: str) -> None:
    scores = await router.score((Message("user", text),), POLICIES)
    assert sum(scores.per_policy) + scores.none == pytest.approx(1)
    assert verdict_of(scores, POLICIES).failure is None


async def test_two_megabytes_are_read_at_both_ends(router: EmbeddedRouter) -> None:
    filling = "lorem ipsum dolor sit amet " * 80_000
    text = f"Find me a flight from Berlin to Rome.\n{filling}\nA cheap flight and a hotel, please."
    scores = await router.score((Message("user", text),), POLICIES)
    assert verdict_of(scores, POLICIES).policy == "travel planning"


@pytest.mark.parametrize(
    "messages",
    [(Message("user", ""),), (Message("system", "write code"),), (Message("assistant", "write a poem"),)],
)
async def test_no_text_of_a_user_falls_under_no_policy(
    router: EmbeddedRouter, messages: tuple[Message, ...]
) -> None:
    scores = await router.score(messages, POLICIES)
    assert scores.none == 1
    assert scores.per_policy == (0.0,) * len(POLICIES)


async def test_one_policy_alone_can_win_and_lose(router: EmbeddedRouter) -> None:
    policies = (Policy("travel", "trips, flights and hotels"),)
    fits = verdict_of(await router.score(conversation("book a flight to Rome"), policies), policies)
    other = verdict_of(await router.score(conversation("fix this segfault"), policies), policies)
    assert (fits.policy, other.policy) == ("travel", None)


async def test_policies_without_a_description_and_of_one_name_are_scored(router: EmbeddedRouter) -> None:
    policies = (Policy("travel", ""), Policy("travel", ""), Policy("_", ""))
    scores = await router.score(conversation("book a flight to Rome"), policies)
    assert scores.per_policy[0] == pytest.approx(scores.per_policy[1])


async def test_examples_draw_messages_like_them_and_not_examples_push_them_away(
    router: EmbeddedRouter,
) -> None:
    messages = conversation("the flux rig in hall 3 needs its weekly purge")
    plain, other = Policy("maintenance", "upkeep of machines"), Policy("scheduling", "shifts and rosters")
    taught = replace(plain, examples=("please purge the flux rig in hall 2", "purge rig 7 again"))
    warned = replace(plain, not_examples=("the flux rig in hall 2 needs its purge",))
    first, drawn, pushed = [
        (await router.score(messages, (policy, other))).per_policy[0] for policy in (plain, taught, warned)
    ]
    assert pushed < first < drawn


async def test_a_policy_with_other_examples_is_encoded_anew(router: EmbeddedRouter) -> None:
    policies = [Policy("a", "b", examples=("x y",)), Policy("a", "b", examples=("x", "y"))]
    policies += [
        Policy("a", "b", not_examples=("x", "y")),
        Policy("a", "b", examples=("x",), not_examples=("y",)),
    ]
    asked = [await router._run(Engine.policy, policy) for policy in policies]
    assert len({id(each) for each in asked}) == 4
    assert await router._run(Engine.policy, policies[0]) is asked[0]


async def test_fifty_at_once_get_the_answers_that_each_gets_alone(router: EmbeddedRouter) -> None:
    asker = RouterAsker(router, RouterSettings("embedded", 60.0, None, 64))
    asked = [texts for _, texts in TURNS] + [(f"order number {number}",) for number in range(21)]
    together = await asyncio.gather(*(asker.ask(conversation(*texts), POLICIES) for texts in asked))
    alone = [await asker.ask(conversation(*texts), POLICIES) for texts in asked]
    assert together == alone
    assert len({verdict.policy for verdict in together}) == len(POLICIES) + 1


async def test_who_is_cancelled_while_waiting_costs_no_encoding(
    router: EmbeddedRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await router.prepare(POLICIES)
    engine = router._engine.result()
    seen: list[str] = []
    original = engine.conversation
    monkeypatch.setattr(
        engine.__class__, "conversation", lambda self, turns: seen.append(turns[0].text) or original(turns)
    )
    gate = threading.Event()
    router._executor.submit(gate.wait, 60)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(router.score(conversation("never encoded"), POLICIES))
        after = group.create_task(router.score(conversation("encoded"), POLICIES))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        gate.set()
    assert task.cancelled()
    assert after.done()
    assert seen == ["encoded"]


async def test_the_threshold_of_the_settings_reaches_the_scores() -> None:
    messages = conversation("What is the capital of France?")
    eager = build_router(RouterSettings("embedded", 1.0, 0.0, 8))
    shy = build_router(RouterSettings("embedded", 1.0, 1.0, 8))
    assert verdict_of(await eager.score(messages, POLICIES), POLICIES).policy is not None
    assert verdict_of(await shy.score(conversation(*TURNS[0][1]), POLICIES), POLICIES).policy is None
    await eager.close()
    await shy.close()


async def test_after_closing_a_question_is_an_error_not_a_hang() -> None:
    subject = EmbeddedRouter()
    await subject.prepare(POLICIES)
    await subject.close()
    with pytest.raises(RouterError) as caught:
        await subject.score(conversation("hello"), POLICIES)
    assert caught.value.reason is Reason.ROUTER_ERROR


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(RouterError, match="'telepathy'"):
        build_router(RouterSettings("telepathy", 1.0, None, 8))


def test_missing_weights_are_named_at_construction(tmp_path: Path) -> None:
    with pytest.raises(RouterError, match=MODEL_FILE):
        EmbeddedRouter(tmp_path)


def _copy(to: Path) -> Path:
    for name in (MODEL_FILE, TOKENIZER_FILE, SETTINGS_FILE):
        shutil.copy(SHIPPED / name, to)
    return to


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
async def test_weights_that_cannot_be_loaded_are_named_in_prepare(tmp_path: Path, name: str) -> None:
    (_copy(tmp_path) / name).write_bytes(b"not it")
    subject = EmbeddedRouter(tmp_path)
    with pytest.raises(RouterError, match=str(tmp_path)):
        await subject.prepare(POLICIES)
    await subject.close()


@pytest.mark.parametrize("change", [{"max_tokens": None}, {"unheard_of": 1}, {"phrasings": None}])
def test_settings_of_another_shape_are_an_error(tmp_path: Path, change: dict[str, object]) -> None:
    path = _copy(tmp_path) / SETTINGS_FILE
    settings = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    with pytest.raises(RouterError, match=SETTINGS_FILE):
        EmbeddedRouter(tmp_path)


def test_what_ships_is_small_and_says_where_it_comes_from() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 30_000_000
    card = (SHIPPED / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "all-MiniLM-L6-v2" in card
    assert "Apache-2.0" in card
