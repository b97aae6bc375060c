"""The metrics of several processes as one: a scrape does not tell who of them answered which request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]
"""A metric as it travels between processes: its name, type and text, and its samples."""

_Key = tuple[str, frozenset[tuple[str, str]]]

GAUGES: Mapping[str, Callable[[list[float]], float]] = {
    "arch_ext_proc_streams_in_flight": sum,
    "arch_ext_proc_pairs_waiting": sum,
    "arch_ext_proc_shadow_copies_in_flight": sum,
    "arch_ext_proc_config_info": max,
    "arch_ext_proc_config_last_reload_success_timestamp_seconds": min,
    "arch_ext_proc_config_last_reload_successful": min,
    "arch_ext_proc_config_replaced_routers_held": sum,
    "arch_ext_proc_split_share": fmean,
    "arch_ext_proc_certificate_expiry_timestamp_seconds": min,
    "arch_ext_proc_rollout_phase": max,
    "arch_ext_proc_rollout_step": max,
    "arch_ext_proc_rollout_weight": max,
    "arch_ext_proc_rollout_share_observed": fmean,
    "arch_ext_proc_rollout_exposed_requests": max,
    "arch_ext_proc_rollout_store_up": min,
    "arch_ext_proc_rollout_lease_held": max,
}
"""What one number comes of a gauge in several processes. Counters and histograms are added up."""

_CREATED = "_created"


def families_of(registry: CollectorRegistry) -> list[Family]:
    """All metrics of this process."""
    return [
        (
            metric.name,
            metric.type,
            metric.documentation,
            [(sample.name, dict(sample.labels), sample.value) for sample in metric.samples],
        )
        for metric in registry.collect()
    ]


class JoinedMetrics:
    """A collector for the parent's registry. Whose metrics they are is told by any hashable name.

    What a process counted stays counted when it is gone, so that no counter ever goes backwards.
    """

    def __init__(self) -> None:
        self._now: dict[object, list[Family]] = {}
        self._gone: dict[_Key, float] = {}
        self._known: dict[str, tuple[str, str]] = {}

    def update(self, whose: object, families: Iterable[Any]) -> None:
        """A process told of its metrics, in place of what it told before."""
        self._now[whose] = [
            (name, kind, text, [(sample, labels, value) for sample, labels, value in samples])
            for name, kind, text, samples in families
        ]
        self._known |= {name: (kind, text) for name, kind, text, _ in self._now[whose]}

    def gone(self, whose: object) -> None:
        """A process has ended: its gauges with it, its counts not."""
        for _, kind, _, samples in self._now.pop(whose, []):
            for name, labels, value in samples:
                if not _is_gauge(kind, name):
                    key = name, frozenset(labels.items())
                    self._gone[key] = self._gone.get(key, 0.0) + value

    def collect(self) -> Iterator[Metric]:
        values: dict[str, dict[_Key, list[float]]] = {name: {} for name in self._known}
        for (sample, labels), value in self._gone.items():
            family = self._family_of(sample)
            values[family].setdefault((sample, labels), []).append(value)
        for families in self._now.values():
            for name, _, _, samples in families:
                for sample, pairs, value in samples:
                    key = sample, frozenset(pairs.items())
                    values[name].setdefault(key, []).append(value)
        for name, (kind, text) in self._known.items():
            metric = Metric(name, text, kind)
            metric.samples = [
                Sample(sample, dict(labels), _joined(kind, sample, found))
                for (sample, labels), found in values[name].items()
            ]
            yield metric

    def _family_of(self, sample: str) -> str:
        return sample if sample in self._known else sample.rpartition("_")[0]


def _is_gauge(kind: str, sample: str) -> bool:
    return kind not in ("counter", "histogram", "summary") or sample.endswith(_CREATED)


def _joined(kind: str, sample: str, values: list[float]) -> float:
    if sample.endswith(_CREATED):
        return min(values)
    if not _is_gauge(kind, sample):
        return sum(values)
    return GAUGES.get(sample, max)(values)
