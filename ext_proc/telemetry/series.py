"""Series of metrics: found fast, and only under names that the configuration in force has.

Whoever may open a stream, or a request's own policies, could otherwise make a series of every name that
they invent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from ext_proc.core.observation import Observation
from ext_proc.core.types import WHOLE_PER_10K, Snapshot

INLINE = "(inline)"
"""The policy label of all policies that requests bring along: their names are the clients' choice."""
OTHER = "(other)"
"""The label of whatever the configuration in force does not name."""

POLICY, MODEL, ARM = "policy", "model", "arm"
"""The labels whose values are names of the configuration."""

Kind = TypeVar("Kind", Counter, Gauge, Histogram)


class Series(Generic[Kind]):
    """The children of one metric by their label values, which `labels()` would check and copy each time.

    Not for threads: the event loop alone counts.
    """

    __slots__ = ("_labels", "_metric", "_series")

    def __init__(self, metric: Kind, labels: Iterable[str]) -> None:
        self._metric: Kind = metric
        self._labels = tuple(labels)
        self._series: dict[tuple[str, ...], Kind] = {}

    def at(self, *values: str) -> Kind:
        """The child with these label values, which are strings and known to be bounded."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = self._metric.labels(*values)
        return found

    def keep(self, names: Mapping[str, frozenset[str]]) -> None:
        """Drop every series with a value that its label's names, if there are some, do not have."""
        bounded = [(number, names[label]) for number, label in enumerate(self._labels) if label in names]
        for values in list(self._series):
            if any(values[number] not in known for number, known in bounded):
                self._metric.remove(*values)
                del self._series[values]


class InForce:
    """What the configuration in force names. A collector, registered before the metrics that it bounds.

    Each time that metrics are read, it drops the series of policies and models that a reload took away.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._current: Callable[[], Snapshot] | None = None
        self._seen: Snapshot | None = None
        self._names: dict[str, frozenset[str]] = {POLICY: frozenset(), MODEL: frozenset(), ARM: frozenset()}
        self._bounded: list[Series[Any]] = []

    def bound(self, series: Series[Kind]) -> Series[Kind]:
        """Let this series have only names of the configuration in force."""
        self._bounded.append(series)
        return series

    def follow(self, current: Callable[[], Snapshot]) -> None:
        """Ask this what is in force."""
        self._current = current

    def policy(self, name: str) -> str:
        return self._known(POLICY, name)

    def model(self, name: str) -> str:
        return self._known(MODEL, name)

    def arm(self, name: str) -> str:
        return self._known(ARM, name)

    def named(self, observation: Observation) -> Observation:
        """The observation with no names but those in force: it read them of headers."""
        policy, target, arm = observation.policy, observation.target, observation.arm
        names = self.policy(policy), self.model(target), self.arm(arm)
        if names == (policy, target, arm):
            return observation
        return replace(observation, policy=names[0], target=names[1], arm=names[2])

    def refresh(self) -> None:
        """Look at what is in force now, and drop the series of what is no longer."""
        snapshot = self._current() if self._current is not None else None
        if snapshot is None or snapshot is self._seen:
            return
        self._seen = snapshot
        arms = {arm.name for route in snapshot.routes.values() for arm in route.arms}
        known = ((POLICY, snapshot.routes), (MODEL, snapshot.targets), (ARM, arms))
        names = {label: frozenset(("", OTHER, INLINE, *values)) for label, values in known}
        if names != self._names:
            self._names = names
            for series in self._bounded:
                series.keep(names)

    def collect(self) -> Iterator[Metric]:
        """The shares that the splits have now, a rollout's included."""
        self.refresh()
        family = GaugeMetricFamily(
            f"{self._prefix}_split_share",
            "The share of a policy's sessions that an arm is to have by its weight now, 0 to 1.",
            labels=(POLICY, MODEL, ARM),
        )
        for route in self._seen.routes.values() if self._seen is not None else ():
            for arm in route.arms:
                labels = (route.policy.name, arm.target.name, arm.name)
                family.add_metric(labels, arm.weight_per_10k / WHOLE_PER_10K)
        yield family

    def _known(self, label: str, name: str) -> str:
        if name in self._names[label]:
            return name
        self.refresh()
        return name if name in self._names[label] else OTHER
