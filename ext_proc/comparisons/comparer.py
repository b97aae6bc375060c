"""Takes answers, pairs them, compares the pairs beside the traffic, and tells of the result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ext_proc.comparisons.judge import Judge
from ext_proc.comparisons.samples import Samples
from ext_proc.core import compare
from ext_proc.core.observation import Comparison
from ext_proc.core.pairs import Pair, PairTable
from ext_proc.core.ports import ComparisonSink, Similarity
from ext_proc.core.settings import ComparisonSettings
from ext_proc.core.watching import Answer
from ext_proc.telemetry import Telemetry
from ext_proc.telemetry.tasks import spawn

SWEEP_S = 5.0
"""How often expired answers are let go where no new ones push them out."""

_MAX_COMPARING = 64
"""Pairs that may be in comparison at once; one more is compared without a model."""


class Comparer:
    """An `AnswerSink`. Contents live here until their pair has been compared, and nowhere after."""

    def __init__(
        self,
        settings: ComparisonSettings,
        telemetry: Telemetry,
        sinks: Sequence[ComparisonSink],
        similarity: Similarity | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._table = PairTable(settings.max_pairs, settings.pair_timeout_s)
        self._telemetry = telemetry
        self._sinks = tuple(sinks)
        self._similarity = similarity
        self._judge = Judge(settings.judge) if settings.judge is not None else None
        self._samples = Samples(settings.samples) if settings.samples is not None else None
        self._clock = clock
        self._comparing: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to let go of expired answers. Needs a running loop."""
        self._sweeper = spawn(self._sweep(), "comparison sweep")

    def configure(self, settings: ComparisonSettings) -> None:
        """Compare by other settings from now on. Answers that wait for their counterparts still meet them."""
        self._table.configure(settings.max_pairs, settings.pair_timeout_s)
        if settings.samples != self._settings.samples:
            self._samples = Samples(settings.samples) if settings.samples is not None else None
        if settings.judge is None:
            if self._judge is not None:
                spawn(self._judge.close(), "judge's end")
            self._judge = None
        elif self._judge is None:
            self._judge = Judge(settings.judge)
        else:
            self._judge.configure(settings.judge)
        self._settings = settings

    def answered(self, answer: Answer) -> None:
        """Take one answer; compare what it completes a pair with."""
        pairs = self._table.add(answer, self._clock())
        self._count(len(pairs))
        for pair in pairs:
            task = spawn(self._compare(pair), "comparison")
            self._comparing.add(task)
            task.add_done_callback(self._comparing.discard)

    async def close(self) -> None:
        """Drop what waits and what is being compared."""
        tasks = [*self._comparing, *([self._sweeper] if self._sweeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._judge is not None:
            await self._judge.close()

    async def _compare(self, pair: Pair) -> None:
        one, other = pair.primary.reply, pair.copy.reply
        seen, shadow = pair.primary.observation, pair.copy.observation
        comparison = compare.compare(seen, shadow, (one, other), time.time())
        if one is not None and other is not None and compare.has_texts(comparison, one, other):
            comparison = await self._asked(comparison, pair.copy.question, one.text, other.text)
        self._tell(comparison)
        if self._samples is not None and not await self._samples.write(comparison, pair):
            self._telemetry.answers.sample_dropped()

    async def _asked(self, comparison: Comparison, question: str | None, one: str, other: str) -> Comparison:
        """The comparison with what models say of the two texts, unless too many pairs wait for them."""
        if len(self._comparing) > _MAX_COMPARING:
            return comparison
        if self._similarity is not None:
            comparison = replace(comparison, similarity=await self._similarity.similarity(one, other))
        # Nobody need judge two answers that are the same.
        if self._judge is not None and not comparison.exact and question:
            comparison = replace(comparison, judge=await self._judge.prefer(question, one, other))
        return comparison

    def _tell(self, comparison: Comparison) -> None:
        for sink in self._sinks:
            try:
                sink.compared(comparison)
            except Exception as error:  # noqa: BLE001 - one sink's bug is not the others' matter
                self._telemetry.bug(error, comparison.primary.request_id)

    def _count(self, compared: int) -> None:
        for why, count in self._table.take_missed().items():
            self._telemetry.answers.paired(why.value, count, len(self._table))
        self._telemetry.answers.paired("compared", compared, len(self._table))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._table.expire(self._clock())
            self._count(0)
