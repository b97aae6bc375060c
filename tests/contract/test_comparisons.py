"""Answers to comparisons: the comparer, a judge that is asked over HTTP, samples on disk."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ext_proc.comparisons import Comparer, RecentComparisons
from ext_proc.comparisons.judge import Judge
from ext_proc.comparisons.samples import MAX_WAITING, Samples
from ext_proc.core.observation import Comparison, Preference, Role
from ext_proc.core.pairs import Pair
from ext_proc.core.settings import ComparisonSettings, JudgeSettings, SamplesSettings
from ext_proc.core.types import Credential, Secret
from ext_proc.router.embedded import EmbeddedSimilarity
from ext_proc.telemetry import Telemetry
from tests.support.answering import answering
from tests.support.pairs import an_answer


class Sink:
    """Keeps comparisons, and lets a test wait for them."""

    def __init__(self) -> None:
        self.comparisons: list[Comparison] = []
        self.came = asyncio.Event()
        self.broken = False

    def compared(self, comparison: Comparison) -> None:
        if self.broken:
            raise ZeroDivisionError
        self.comparisons.append(comparison)
        self.came.set()

    async def first(self) -> Comparison:
        await asyncio.wait_for(self.came.wait(), 60)
        return self.comparisons[0]


class FixedSimilarity:
    def __init__(self, value: float | None) -> None:
        self.value = value
        self.asked = 0

    async def similarity(self, one: str, other: str) -> float | None:
        self.asked += 1
        return self.value


class JudgeServer:
    """Prefers the answer that says "better"; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.headers: list[Any] = []
        self.status = 200
        self.hold: asyncio.Event | None = None
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[JudgeServer]:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._judge)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/chat/completions"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _judge(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(request.headers)
        if self.hold is not None:
            await self.hold.wait()
        text = body["messages"][1]["content"]
        first = text.index("<answer-a>") < text.index("better") < text.index("<answer-b>")
        choice = {"index": 0, "message": {"role": "assistant", "content": "A" if first else "B"}}
        return web.json_response({"choices": [choice]}, status=self.status)


def settings(url: str, **changes: Any) -> JudgeSettings:
    key = Credential("authorization", Secret("Bearer of-the-judge"))
    return replace(JudgeSettings(url, "judge", key, 30.0, 2, 10_000), **changes)


def drawn(*numbers: float) -> Any:
    given: Iterator[float] = iter(numbers)
    return lambda: next(given)


@asynccontextmanager
async def comparing(
    sink: Sink, similarity: Any = None, **changes: Any
) -> AsyncIterator[tuple[Comparer, Telemetry]]:
    telemetry = Telemetry()
    comparer = Comparer(ComparisonSettings(**changes), telemetry, [sink], similarity)
    comparer.start()
    try:
        yield comparer, telemetry
    finally:
        await comparer.close()


async def test_two_answers_become_a_comparison() -> None:
    sink, similarity = Sink(), FixedSimilarity(0.7)
    async with comparing(sink, similarity) as (comparer, telemetry):
        comparer.answered(an_answer())
        comparer.answered(an_answer(Role.SHADOW, "It pours."))
        comparison = await sink.first()
    assert comparison.policy == "coding"
    assert (comparison.primary.target, comparison.shadow_target) == ("a/one", "b/two")
    assert (comparison.exact, comparison.similarity, comparison.judge) == (False, 0.7, None)
    assert telemetry.registry.get_sample_value("arch_ext_proc_pairs_total", {"outcome": "compared"}) == 1
    assert telemetry.registry.get_sample_value("arch_ext_proc_pairs_waiting") == 0


async def test_a_failed_copy_is_a_comparison_without_contents_and_asks_no_model() -> None:
    sink, similarity = Sink(), FixedSimilarity(0.7)
    async with comparing(sink, similarity) as (comparer, _):
        comparer.answered(an_answer(Role.SHADOW, None, status=503))
        comparer.answered(an_answer())
        comparison = await sink.first()
    assert comparison.shadow.is_error
    assert (comparison.exact, comparison.similarity, similarity.asked) == (None, None, 0)


async def test_a_sink_that_fails_is_a_bug_and_no_more() -> None:
    broken, sink = Sink(), Sink()
    broken.broken = True
    telemetry = Telemetry()
    comparer = Comparer(ComparisonSettings(), telemetry, [broken, sink])
    comparer.answered(an_answer())
    comparer.answered(an_answer(Role.SHADOW))
    await sink.first()
    await comparer.close()
    assert telemetry.registry.get_sample_value("arch_ext_proc_stream_errors_total", {"kind": "bug"}) == 1


@pytest.mark.parametrize("order", [0.1, 0.9], ids=["swapped", "not swapped"])
@pytest.mark.parametrize("better", [Preference.PRIMARY, Preference.SHADOW])
async def test_a_judge_prefers_the_better_answer_wherever_it_stands(order: float, better: Preference) -> None:
    texts = ("better", "worse") if better is Preference.PRIMARY else ("worse", "better")
    async with JudgeServer().running() as server:
        judge = Judge(settings(server.url), drawn(0.0, order))
        assert await judge.prefer("Q?", *texts) is better
        await judge.close()
    assert server.headers[0]["authorization"] == "Bearer of-the-judge"
    assert server.asked[0]["model"] == "judge"


async def test_a_judge_that_fails_is_late_or_down_says_nothing() -> None:
    async with JudgeServer().running() as server:
        server.status = 500
        judge = Judge(settings(server.url))
        assert await judge.prefer("Q?", "better", "worse") is None
        await judge.close()
        server.status, server.hold = 200, asyncio.Event()
        late = Judge(settings(server.url, timeout_s=0.05))
        assert await late.prefer("Q?", "better", "worse") is None
        await late.close()
        server.hold.set()
    down = Judge(settings(server.url))
    assert await down.prefer("Q?", "better", "worse") is None
    await down.close()


async def test_a_judge_that_points_elsewhere_is_not_followed() -> None:
    async with answering() as elsewhere, answering() as server:
        server.status, server.location = 307, f"{elsewhere.url}/v1/chat/completions"
        judge = Judge(settings(f"{server.url}/v1/chat/completions"))
        assert await judge.prefer("Q?", "better", "worse") is None
        await judge.close()
        assert (len(server.seen), elsewhere.seen) == (1, [])


async def test_a_judge_gets_a_share_of_the_pairs() -> None:
    async with JudgeServer().running() as server:
        judge = Judge(settings(server.url, percent_per_10k=2_500), drawn(0.25, 0.2499, 0.9))
        assert await judge.prefer("Q?", "better", "worse") is None
        assert await judge.prefer("Q?", "better", "worse") is Preference.PRIMARY
        await judge.close()
    assert len(server.asked) == 1


async def test_a_slow_judge_is_asked_no_more_than_its_bound_and_has_no_endless_queue() -> None:
    async with JudgeServer().running() as server:
        server.hold = asyncio.Event()
        judge = Judge(settings(server.url, max_concurrent=2))
        asking = [asyncio.ensure_future(judge.prefer("Q?", "better", "worse")) for _ in range(50)]
        while len(server.asked) < 2:
            await asyncio.sleep(0.01)
        refused = [task for task in asking if task.done()]
        assert len(refused) == 50 - 2 * 8
        assert len(server.asked) == 2
        server.hold.set()
        verdicts = await asyncio.gather(*asking)
        await judge.close()
    assert verdicts.count(Preference.PRIMARY) == 2 * 8


async def test_a_judge_that_a_reload_takes_away_costs_no_comparison() -> None:
    sink = Sink()
    async with JudgeServer().running() as server:
        server.hold = asyncio.Event()
        async with comparing(sink, judge=settings(server.url, max_concurrent=1)) as (comparer, _):
            for pair in ("p1", "p2"):
                comparer.answered(an_answer(pair=pair, text="better"))
                comparer.answered(an_answer(Role.SHADOW, "worse", pair=pair, question="Q?"))
            while not server.asked:
                await asyncio.sleep(0.01)
            comparer.configure(ComparisonSettings())
            async with asyncio.timeout(60):
                while len(sink.comparisons) < 2:
                    await asyncio.sleep(0.01)
        server.hold.set()


async def test_the_judge_hears_the_question_and_not_of_answers_that_agree() -> None:
    sink = Sink()
    async with (
        JudgeServer().running() as server,
        comparing(sink, judge=settings(server.url)) as (comparer, _),
    ):
        comparer.answered(an_answer(text="better"))
        comparer.answered(an_answer(Role.SHADOW, "worse", question="Does it rain?"))
        assert (await sink.first()).judge is Preference.PRIMARY
        comparer.answered(an_answer(text="better", pair="2"))
        comparer.answered(an_answer(Role.SHADOW, "better", pair="2", question="Does it rain?"))
        while len(sink.comparisons) < 2:
            await asyncio.sleep(0.01)
    assert len(server.asked) == 1
    assert "Does it rain?" in server.asked[0]["messages"][1]["content"]


async def test_samples_are_redacted_private_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    samples = Samples(SamplesSettings(str(path), True, 1_500))
    primary = an_answer(text="Sent to jane@example.com.")
    pair = Pair(primary, an_answer(Role.SHADOW, "Done.", question="Write to jane@example.com"))
    comparison = Comparison(primary.observation, pair.copy.observation, 1.0)
    for _ in range(4):
        await samples.write(comparison, pair)
    lines = path.read_text().splitlines()
    assert path.stat().st_size <= 1_500
    assert 1 <= len(lines) < 4
    sample = json.loads(lines[0])
    assert sample["primary_answer"]["text"] == "Sent to <email>."
    assert sample["shadow_answer"]["text"] == "Done."
    assert sample["question"] == "Write to <email>"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_disk_that_hangs_holds_back_few_texts_and_no_comparison(tmp_path: Path) -> None:
    sink, path, pairs = Sink(), tmp_path / "hangs", 3 * MAX_WAITING
    os.mkfifo(path)  # To open it waits for a reader.
    async with comparing(sink, samples=SamplesSettings(str(path), True, 1 << 20)) as (comparer, telemetry):
        for number in range(pairs):
            comparer.answered(an_answer(pair=str(number)))
            comparer.answered(an_answer(Role.SHADOW, pair=str(number)))
        async with asyncio.timeout(60):
            while len(sink.comparisons) < pairs:
                await asyncio.sleep(0.01)
        dropped = telemetry.registry.get_sample_value("arch_ext_proc_samples_dropped_total")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await asyncio.get_running_loop().shutdown_default_executor()
    os.close(reader)
    assert dropped == pairs - MAX_WAITING


async def test_a_disk_in_trouble_costs_no_comparison(tmp_path: Path) -> None:
    sink = Sink()
    nowhere = SamplesSettings(str(tmp_path / "no" / "folder"), True, 1 << 20)
    async with comparing(sink, samples=nowhere) as (comparer, _):
        comparer.answered(an_answer())
        comparer.answered(an_answer(Role.SHADOW))
        assert (await sink.first()).exact


async def test_the_embedded_encoder_finds_near_answers_nearer_than_far_ones() -> None:
    similarity = EmbeddedSimilarity()
    same = await similarity.similarity("The cat sat on the mat.", "The cat sat on the mat.")
    near = await similarity.similarity("The cat sat on the mat.", "A cat was sitting on a rug.")
    far = await similarity.similarity("The cat sat on the mat.", "Quarterly revenue grew by nine percent.")
    await similarity.close()
    assert same is not None
    assert near is not None
    assert far is not None
    assert same == pytest.approx(1.0, abs=1e-3)
    assert far < near < same
    assert await similarity.similarity("a", "b") is None


def test_recent_comparisons_are_figures_and_sums() -> None:
    recent = RecentComparisons()
    primary, shadow = an_answer().observation, an_answer(Role.SHADOW, tokens_out=9).observation
    noise = an_answer(Role.NOISE, target="a/one").observation
    recent.compared(Comparison(primary, shadow, 1.0, exact=True, similarity=1.0, judge=Preference.TIE))
    recent.compared(Comparison(primary, shadow, 2.0, exact=False, similarity=0.5, structured_equal=False))
    recent.compared(Comparison(primary, replace(shadow, status=500), 3.0))
    recent.compared(Comparison(primary, noise, 4.0, exact=True))
    shown: Any = json.loads(json.dumps(recent.shown()))
    by_role = {total["role"]: total for total in shown["totals"]}
    assert by_role["shadow"]["pairs"] == 3
    assert by_role["shadow"]["shadow_failed"] == 1
    assert (by_role["shadow"]["exact"], by_role["shadow"]["similarity"]) == (0.5, 0.75)
    assert by_role["shadow"]["structured_equal"] == 0.0
    assert by_role["shadow"]["judge"] == {"primary": 0, "shadow": 0, "tie": 1}
    assert by_role["noise"]["exact"] == 1.0
    assert [one["at"] for one in shown["recent"]] == [4.0, 3.0, 2.0, 1.0]
