"""The file read anew: when it or a secret's file changes, and when somebody asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ext_proc.app.serving import Serving, Waiting
from ext_proc.config.load import Loaded
from ext_proc.config.source import Source, has_changed
from ext_proc.config.watch import changes
from ext_proc.core.errors import ConfigError, RouterError
from ext_proc.telemetry.reloads import ReloadOutcome, ReloadTelemetry
from ext_proc.telemetry.tasks import spawn

APPLY_LIMIT_S = 300.0
"""How long a new router may take to be ready: a model takes minutes, one that hangs ends no reloads."""


@dataclass(frozen=True, slots=True)
class Reload:
    """One reload. `problems` are why nothing changed, `waiting` what did not."""

    at: float
    outcome: ReloadOutcome
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    waiting: Waiting = Waiting((), ())  # noqa: RUF009 - frozen


class Reloader:
    """Reads, checks, builds and swaps, one file at a time: what is wrong with it changes nothing."""

    def __init__(
        self,
        serving: Serving,
        source: Source,
        loaded: Loaded,
        telemetry: ReloadTelemetry,
        limit_s: float = APPLY_LIMIT_S,
    ) -> None:
        self._serving = serving
        self._limit_s = limit_s
        self._source = source
        self._loaded = loaded
        self._read = loaded.read
        self._telemetry = telemetry
        self._since = time.time()
        self._last: Reload | None = None
        self._wanted = asyncio.Event()
        self._asked = False
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Watch, from now on."""
        self._telemetry.began(self._since)
        self._tasks = [spawn(self._watch(), "configuration watch"), spawn(self._run(), "reloads")]

    def ask(self) -> None:
        """Read the file anew, changed or not."""
        self._asked = True
        self._wanted.set()

    async def stop(self) -> None:
        """End. A configuration that is being built does not come into force."""
        self._stop.set()
        self._tasks[1].cancel()
        await asyncio.wait(self._tasks)

    def shown(self) -> Mapping[str, Any]:
        """What is in force, without secrets, and how the last reload went: JSON's types."""
        last, views = self._last, self._serving.live.views.values()
        return {
            "file": str(self._source.file),
            "revision": self._serving.live.snapshot.revision,
            "in_force_since": self._since,
            "last_reload": None
            if last is None
            else {
                "at": last.at,
                "outcome": last.outcome.value,
                "problems": list(last.problems),
                "warnings": list(last.warnings),
                "waits_for_restart": list(last.waiting.for_restart),
                "waits_for_envoy": list(last.waiting.for_envoy),
            },
            # Since this came into force, of any Envoy that asked.
            "envoy_lacks": sorted({name for view in views if view for name in view.lacks}),
            "configuration": self._loaded.shown,
        }

    async def _watch(self) -> None:
        async with aclosing(changes(lambda: self._read, self._stop)) as found:
            async for _ in found:
                if await asyncio.to_thread(has_changed, self._read):
                    self._wanted.set()

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            asked, self._asked = self._asked, False
            # What was noticed while another reload went on, that one may have read.
            if asked or await asyncio.to_thread(has_changed, self._read):
                self._last = await self.reload()

    async def reload(self) -> Reload:
        """Read the file and put it in force if it is good."""
        try:
            loaded = await asyncio.to_thread(self._source.load)
        except ConfigError as error:
            # A text that is no YAML names no secrets' files: those that were known are watched on.
            self._read = {**self._read, **error.read}
            wrong = tuple(str(problem) for problem in error.problems if not problem.is_warning)
            return self._refused(ReloadOutcome.REFUSED, wrong)
        except Exception as error:  # noqa: BLE001 - as below
            return self._bug(error)
        self._read = loaded.read
        try:
            async with asyncio.timeout(self._limit_s):
                waiting = await self._serving.apply(loaded.configuration)
        except TimeoutError:
            return self._refused(ReloadOutcome.FAILED, (f"not ready within {self._limit_s:g} s",))
        except RouterError as error:
            return self._refused(ReloadOutcome.FAILED, (str(error),))
        except Exception as error:  # noqa: BLE001 - a bug must not end the reloads; its text could quote anything
            return self._bug(error)
        self._loaded, self._since = loaded, time.time()
        warnings = tuple(map(str, loaded.warnings))
        for warning in warnings:
            self._telemetry.warned(warning)
        revision = self._serving.live.snapshot.revision
        self._telemetry.applied(self._since, revision, waiting.for_restart, waiting.for_envoy)
        return Reload(self._since, ReloadOutcome.OK, (), warnings, waiting)

    def _bug(self, error: Exception) -> Reload:
        return self._refused(ReloadOutcome.FAILED, (f"a bug: {type(error).__name__}",))

    def _refused(self, outcome: ReloadOutcome, problems: tuple[str, ...]) -> Reload:
        self._telemetry.refused(outcome, problems)
        return Reload(time.time(), outcome, problems)
