"""Decisions written to a case file, by a thread of its own, within bounds.

docs/evaluation.md says what is in it. Opt-in: `routing.record`.
"""

from __future__ import annotations

import contextlib
import fcntl
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
from ext_proc.core.ports import Recorder
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
class _Under:
    """What is recorded of the configuration that decided, and where."""

    settings: RecordSettings
    policies: tuple[Policy, ...]
    salt: bytes
    revision: str
    policy_set: str
    set_text: str


@dataclass(frozen=True, slots=True)
class _Entry:
    under: _Under
    time: float
    caller: Caller
    session: bytes
    messages: tuple[Message, ...]
    policies: tuple[Policy, ...]
    verdict: Verdict
    decision: Decision


class Recording:
    """Writes the decisions of all configurations, each where its own says.

    What is kept on disk is the newest, within `max_bytes`: the file turns into `PATH.1` when it has half of
    that. A disk that fails costs the record, never a request: the next decision is tried again. The thread
    begins with the first configuration that wants a record. Several processes may write one file: a line is
    one write at the file's end.
    """

    def __init__(self, not_recorded: NotRecorded) -> None:
        self._not_recorded = not_recorded
        self._queue: queue.Queue[_Entry | None] = queue.Queue(MAX_WAITING)
        self._path = Path()
        self._file: int | None = None
        self._failing = False
        self._thread: threading.Thread | None = None

    def under(self, settings: RecordSettings, snapshot: Snapshot) -> Recorder:
        """What records the decisions of one configuration."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="decision-recording", daemon=True)
            self._thread.start()
        policy_set, set_text = record.policy_set_of(snapshot.policies)
        under = _Under(settings, snapshot.policies, snapshot.salt, snapshot.revision, policy_set, set_text)
        return _Recorder(self, under)

    def close(self) -> None:
        """Write what waits, for a while, and end."""
        if self._thread is None:
            return
        try:
            self._queue.put(None, timeout=CLOSE_S)
        except queue.Full:
            return
        self._thread.join(CLOSE_S)

    @property
    def is_open(self) -> bool:
        """Whether a file is."""
        return self._file is not None

    def take(self, entry: _Entry) -> None:
        """Have a decision written. Never raises, never waits."""
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self._not_recorded("too_many_waiting", "")

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            try:
                line = orjson.dumps(_row(entry), option=orjson.OPT_APPEND_NEWLINE)
                self._write(line, entry.under)
                self._failing = False
            except Exception as error:  # noqa: BLE001 - a text may have any form, a disk any fault
                self._close_file()
                self._not_recorded("failed", "" if self._failing else type(error).__name__)
                self._failing = True
        self._close_file()

    def _write(self, line: bytes, under: _Under) -> None:
        half = under.settings.max_bytes // 2
        if len(line) > half:
            raise ValueError("longer than the file may be")
        if Path(under.settings.path) != self._path:
            self._close_file()
            self._path = Path(under.settings.path)
        _write_policy_set(self._path.parent, under)
        if self._file is None:
            self._file = self._open()
        if os.fstat(self._file).st_size + len(line) > half:
            self._turn(self._file)
            self._file = self._open()
        written = 0
        while written < len(line):
            written += os.write(self._file, line[written:])

    def _turn(self, file: int) -> None:
        """Make the file `PATH.1` and close it, unless another process that writes it has."""
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), self._path.stat()):
                self._path.replace(f"{self._path}.1")
        self._close_file()

    def _open(self) -> int:
        # What users wrote is for nobody else's eyes.
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _Recorder:
    """Implements `core.ports.Recorder` for one configuration."""

    def __init__(self, recording: Recording, under: _Under) -> None:
        self._recording = recording
        self._under = under

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
        self._recording.take(
            _Entry(self._under, time.time(), caller, session, messages, policies, verdict, decision)
        )


def _row(entry: _Entry) -> dict[str, Any]:
    under = entry.under
    clean = redact if under.settings.redact else str
    # Ids of clients may say who they are: what is kept only tells conversations apart.
    conversation = blake2b(entry.session, digest_size=8, key=under.salt).hexdigest()
    own: dict[str, Any] = {"policy_set": under.policy_set}
    if entry.policies is not under.policies:
        own = {"policies": record.policies_of(entry.policies)}
    decided = record.decided_of(entry.verdict)
    decided |= {"reason": entry.decision.reason.value, "target": entry.decision.target.name}
    return {
        "id": entry.caller.request_id,
        "time": round(entry.time, 3),
        "conversation_id": conversation,
        "revision": under.revision,
        **own,
        "messages": [
            # Half a surrogate pair is no text that could be written.
            {"role": message.role, "content": clean(message.text).encode("utf-8", "replace").decode()}
            for message in entry.messages
        ],
        "decided": decided,
    }


def _write_policy_set(folder: Path, under: _Under) -> None:
    file = folder / "policy_sets" / f"{under.policy_set}.yaml"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(under.set_text, encoding="utf-8")
