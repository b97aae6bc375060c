"""Several processes' metrics as one."""

from __future__ import annotations

import json
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ext_proc.telemetry import Telemetry
from ext_proc.telemetry.joining import GAUGES, JoinedMetrics, families_of
from ext_proc.telemetry.reloads import ReloadTelemetry
from ext_proc.telemetry.rollouts import RolloutTelemetry


class Process:
    """One process's metrics, as the parent gets them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counter = Counter("things", "Things.", ("kind",), registry=self.registry)
        self.histogram = Histogram("lasted", "How long.", buckets=(1.0,), registry=self.registry)
        self.streams = Gauge("arch_ext_proc_streams_in_flight", "Now.", registry=self.registry)
        self.store = Gauge("arch_ext_proc_rollout_store_up", "Up.", registry=self.registry)

    def told(self) -> list[object]:
        found: list[object] = json.loads(json.dumps(families_of(self.registry)))
        return found


def values(joined: JoinedMetrics) -> Mapping[str, float]:
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for metric in joined.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def test_counts_are_added_up_and_gauges_each_in_their_way() -> None:
    joined, one, other = JoinedMetrics(), Process(), Process()
    one.counter.labels("a").inc(2)
    other.counter.labels("a").inc(3)
    other.counter.labels("b").inc()
    one.histogram.observe(0.5)
    other.histogram.observe(2)
    one.streams.set(4)
    other.streams.set(5)
    one.store.set(1)
    joined.update("one", one.told())
    joined.update("other", other.told())
    assert values(joined) == {
        "things_total a": 5,
        "things_total b": 1,
        "lasted_bucket 1.0": 1,
        "lasted_bucket +Inf": 2,
        "lasted_count": 2,
        "lasted_sum": 2.5,
        "arch_ext_proc_streams_in_flight": 9,
        "arch_ext_proc_rollout_store_up": 0,
    }


def test_what_a_process_tells_again_takes_the_place_of_what_it_told() -> None:
    joined, one = JoinedMetrics(), Process()
    for _ in range(2):
        one.counter.labels("a").inc()
        joined.update("one", one.told())
    assert values(joined)["things_total a"] == 2


def test_counts_outlive_their_process_and_gauges_do_not() -> None:
    joined, one, next_one = JoinedMetrics(), Process(), Process()
    one.counter.labels("a").inc(2)
    one.histogram.observe(0.5)
    one.streams.set(4)
    joined.update("one", one.told())
    joined.gone("one")
    assert values(joined)["things_total a"] == 2
    assert "arch_ext_proc_streams_in_flight" not in values(joined)
    next_one.counter.labels("a").inc()
    joined.update("next", next_one.told())
    joined.gone("never seen")
    assert (values(joined)["things_total a"], values(joined)["lasted_count"]) == (3, 1)
    joined.gone("next")
    assert values(joined)["things_total a"] == 3


def test_it_is_said_of_every_gauge_what_several_of_it_are() -> None:
    telemetry = Telemetry()
    RolloutTelemetry(telemetry.registry)
    ReloadTelemetry(telemetry.registry, lambda: 0)
    gauges = {name for name, kind, _, _ in families_of(telemetry.registry) if kind == "gauge"}
    assert gauges == GAUGES.keys()
