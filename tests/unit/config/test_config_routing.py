"""The section `routing` and what it becomes."""

from __future__ import annotations

from ext_proc.config.load import load_text
from ext_proc.core.settings import (
    Configuration,
    MemorySettings,
    RecordSettings,
    RouterSettings,
    ShadowRouterSettings,
)
from ext_proc.core.types import Confidence

BASE = "model_providers: [{model: openai/a, default: true}]\n"


def configuration(text: str = "") -> Configuration:
    return load_text(BASE + text, "f", {}, lambda: b"").configuration


def test_unless_written_verdicts_are_kept_and_nothing_is_recorded() -> None:
    found = configuration()
    assert found.router.cache == MemorySettings(4096, 600.0)
    assert found.sessions == MemorySettings(100_000, 3600.0)
    assert (found.shadow_router, found.record) == (None, None)
    assert found.snapshot.confidence == Confidence(0.0, 0.0)


def test_everything_written() -> None:
    found = configuration(
        """\
routing:
  shadow_router: {type: embedded, threshold: 0.4, max_waiting: 3, percent: 12.5, deadline: 1m}
  confidence: {threshold: 0.3, margin: 0.1}
  cache: {size: 10, ttl: 1m}
  record: {path: decisions.jsonl, redact: false, max_size: 1MiB}
affinity: {memory: {size: 0}}
"""
    )
    assert found.shadow_router == ShadowRouterSettings(RouterSettings("embedded", 60.0, 0.4, 3), 1250)
    assert found.snapshot.confidence == Confidence(0.3, 0.1)
    assert found.router.cache == MemorySettings(10, 60.0)
    assert found.record == RecordSettings("decisions.jsonl", redact=False, max_bytes=1 << 20)
    assert found.sessions.size == 0


def test_a_shadow_router_may_be_named_by_its_type_alone() -> None:
    shadow = configuration("routing: {shadow_router: embedded}").shadow_router
    assert shadow is not None
    assert (shadow.router.type, shadow.percent_per_10k) == ("embedded", 10_000)
