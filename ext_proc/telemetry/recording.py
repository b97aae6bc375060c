"""Decisions written to a case file, by a thread of its own, within bounds.

docs/evaluation.md says what is in it. Opt-in: `routing.record`.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from ext_proc.core import affinity, record
from ext_proc.core.redact import redact
from ext_proc.core.settings import RecordSettings
from ext_proc.core.types import Caller, Decision, LlmCall, Message, Policy, Snapshot, Verdict

MAX_WAITING = 256
"""Decisions that wait to be written: at most 64 kB each. One more is not recorded."""
CLOSE_S = 2.0
"""How long `close` waits for those."""

NotRecorded = Callable[[str, str], None]
"""Told why a decision was not recorded, and the type of the error, if one is new."""


@dataclass(frozen=True, slots=True)
class _Entry:
    time: float
    caller: Caller
    session: bytes
    messages: tuple[Message, ...]
    policies: tuple[Policy, ...]
    verdict: Verdict
    decision: Decision


class Recording:
    """Implements `core.ports.Recorder`. What it keeps on disk is the newest, within `max_bytes`.

    The file turns into `PATH.1` when it has half of that. A disk that fails costs the record, never a
    request: the next decision is tried again.
    """

    def __init__(self, settings: RecordSettings, snapshot: Snapshot, not_recorded: NotRecorded) -> None:
        self._settings = settings
        self._path = Path(settings.path)
        self._policies, self._salt, self._revision = snapshot.policies, snapshot.salt, snapshot.revision
        self._policy_set, self._set_text = record.policy_set_of(snapshot.policies)
        self._not_recorded = not_recorded
        self._queue: queue.Queue[_Entry | None] = queue.Queue(MAX_WAITING)
        self._file: int | None = None
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="decision-recording", daemon=True)
        self._thread.start()

    def record(
        self,
        call: LlmCall,
        policies: tuple[Policy, ...],
        verdict: Verdict,
        decision: Decision,
        caller: Caller,
    ) -> None:
        """Take one decision. Never raises, never waits."""
        messages = record.read_by_router(call.messages)
        session = affinity.session_key(call, caller)
        entry = _Entry(time.time(), caller, session, messages, policies, verdict, decision)
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self._not_recorded("too_many_waiting", "")

    def close(self) -> None:
        """Write what waits, for a while, and end."""
        try:
            self._queue.put(None, timeout=CLOSE_S)
        except queue.Full:
            return
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            try:
                self._write(orjson.dumps(self._row(entry), option=orjson.OPT_APPEND_NEWLINE))
                self._failing = False
            except Exception as error:  # noqa: BLE001 - a text may have any form, a disk any fault
                self._close_file()
                self._not_recorded("failed", "" if self._failing else type(error).__name__)
                self._failing = True
        self._close_file()

    def _row(self, entry: _Entry) -> dict[str, Any]:
        clean = redact if self._settings.redact else str
        # Ids of clients may say who they are: what is kept only tells conversations apart.
        conversation = blake2b(entry.session, digest_size=8, key=self._salt).hexdigest()
        own: dict[str, Any] = {"policy_set": self._policy_set}
        if entry.policies is not self._policies:
            own = {"policies": record.policies_of(entry.policies)}
        decided = record.decided_of(entry.verdict)
        decided |= {"reason": entry.decision.reason.value, "target": entry.decision.target.name}
        return {
            "id": entry.caller.request_id,
            "time": round(entry.time, 3),
            "conversation_id": conversation,
            "revision": self._revision,
            **own,
            "messages": [
                # Half a surrogate pair is no text that could be written.
                {"role": message.role, "content": clean(message.text).encode("utf-8", "replace").decode()}
                for message in entry.messages
            ],
            "decided": decided,
        }

    def _write(self, line: bytes) -> None:
        half = self._settings.max_bytes // 2
        if len(line) > half:
            raise ValueError("longer than the file may be")
        if self._file is None:
            self._file = self._open()
        if os.fstat(self._file).st_size + len(line) > half:
            self._close_file()
            self._path.replace(f"{self._path}.1")
            self._file = self._open()
        written = 0
        while written < len(line):
            written += os.write(self._file, line[written:])

    def _open(self) -> int:
        folder = self._path.parent / "policy_sets"
        folder.mkdir(parents=True, exist_ok=True)
        policy_set = folder / f"{self._policy_set}.yaml"
        if not policy_set.exists():
            policy_set.write_text(self._set_text, encoding="utf-8")
        # What users wrote is for nobody else's eyes.
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
