"""What the parent of several workers tells of them: metrics beside theirs, and log lines."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from ext_proc.telemetry import log
from ext_proc.telemetry.joining import JoinedMetrics

_PREFIX = "arch_ext_proc_worker"


class WorkerTelemetry:
    """Metrics of the workers, and `joined`, those that the workers count themselves."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.joined = JoinedMetrics()
        registry.register(self.joined)
        self._restarts = Counter(
            f"{_PREFIX}_restarts",
            "Workers started in place of another, by why: crashed, or rolling (a restart in turn).",
            ("worker", "why"),
            registry=registry,
        )
        self._serving = Gauge(f"{_PREFIX}s_serving", "Workers that take requests.", registry=registry)
        self._wanted = Gauge(f"{_PREFIX}s_wanted", "Workers that there should be.", registry=registry)
        self._undelivered = Counter(
            f"{_PREFIX}_messages_dropped",
            "Messages from worker to worker that were not delivered.",
            registry=registry,
        )

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def serving(self, now: int, wanted: int) -> None:
        self._serving.set(now)
        self._wanted.set(wanted)

    def started(self, worker: int, pid: int) -> None:
        log.event(logging.INFO, "worker_started", worker=worker, pid=pid)

    def ready(self, worker: int, pid: int) -> None:
        log.event(logging.INFO, "worker_ready", worker=worker, pid=pid)

    def ended(self, worker: int, pid: int, status: int, *, expected: bool) -> None:
        """A worker has ended. `status` is negative for a signal."""
        level = logging.INFO if expected else logging.ERROR
        log.event(level, "worker_ended", worker=worker, pid=pid, status=status)

    def restarted(self, worker: int, why: str, delay_s: float = 0.0) -> None:
        """Another one takes a worker's place, `delay_s` from now."""
        self._restarts.labels(str(worker), why).inc()
        if delay_s:
            log.event(logging.WARNING, "worker_restart_waits", worker=worker, seconds=round(delay_s, 1))

    def hung(self, worker: int, pid: int, state: str) -> None:
        """A worker is ended because it does nothing. `state`: starting, serving or leaving."""
        log.event(logging.ERROR, "worker_hung", worker=worker, pid=pid, state=state)

    def undelivered(self) -> None:
        self._undelivered.inc()
