"""A model that says which of two answers is better: asked directly, bounded, and no client waits for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import aiohttp

from ext_proc.core import judging
from ext_proc.core.observation import Preference
from ext_proc.core.settings import JudgeSettings
from ext_proc.core.types import WHOLE_PER_10K

_MAX_WAITING = 8
"""Pairs that may wait for each question on its way; one more is not judged, so that no queue grows."""

_MAX_ANSWER_BYTES = 1 << 20


class Judge:
    """Asks at most `max_concurrent` questions at once. `draw` gives a number in [0, 1), for whoever comes
    first and for which pairs are judged."""

    def __init__(self, settings: JudgeSettings, draw: Callable[[], float] = random.random) -> None:
        self._settings = settings
        self._draw = draw
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._waiting = 0
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    def configure(self, settings: JudgeSettings) -> None:
        """Ask by other settings from now on. Questions on their way go on by those they began with."""
        if settings.max_concurrent != self._settings.max_concurrent:
            self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._settings = settings

    async def prefer(self, question: str, primary: str, shadow: str) -> Preference | None:
        """Whom the judge prefers. None when it is not asked, is late, fails, or says nothing clear."""
        settings = self._settings
        if self._draw() * WHOLE_PER_10K >= settings.percent_per_10k:
            return None
        if self._waiting >= settings.max_concurrent * _MAX_WAITING:
            return None
        self._waiting += 1
        try:
            async with self._slots:
                return await self._ask(question, primary, shadow)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Ask no more. Questions under way and those that wait get no answer."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    async def _ask(self, question: str, primary: str, shadow: str) -> Preference | None:
        if self._is_closed:
            return None
        settings = self._settings
        swapped = self._draw() < 0.5
        body = judging.request_body(settings.model, question, primary, shadow, swapped=swapped)
        credential = settings.credential
        headers = {credential.header: credential.value.reveal()} if credential else {}
        if self._session is None:
            self._session = aiohttp.ClientSession()
        timeout = aiohttp.ClientTimeout(total=settings.timeout_s)
        try:
            # Wherever else an answer may point, the texts and the key were not meant for it.
            async with self._session.post(
                settings.url, json=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    return None
                data = await answer.content.read(_MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, TimeoutError, UnicodeError):
            return None
        text = judging.said(data)
        return judging.read_verdict(text, swapped=swapped) if text is not None else None
