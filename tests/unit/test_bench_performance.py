"""What benchmarks make of their measurements: trends, tables, and the page that shows them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bench import bodies, load
from bench.soak import Sample, slope, trends

STEADY = Sample(0.0, 100, 0, 5.0, 9.0, 190.0, 35, 1.0, 100.0)


def series(**growth: float) -> list[Sample]:
    """A hundred samples, five seconds apart, in which these fields grow by so much each."""
    return [
        replace(
            STEADY, at_s=5.0 * at, **{name: getattr(STEADY, name) + at * by for name, by in growth.items()}
        )
        for at in range(100)
    ]


def test_a_steady_series_is_flat() -> None:
    assert all(trend.is_flat for trend in trends(series()))


def test_memory_that_grows_is_told() -> None:
    grows = [trend.name for trend in trends(series(rss_mb=0.5)) if not trend.is_flat]
    assert grows == ["rss_mb"]


def test_one_spike_is_no_trend() -> None:
    samples = series()
    samples[90] = replace(samples[90], p99_ms=10_000.0, rss_mb=400.0)
    assert all(trend.is_flat for trend in trends(samples))


def test_what_grows_while_caches_fill_is_no_trend() -> None:
    samples = series()
    samples[:15] = [replace(sample, rss_mb=100.0 + at) for at, sample in enumerate(samples[:15])]
    assert all(trend.is_flat for trend in trends(samples))


def test_the_slope_of_a_line_is_its_slope() -> None:
    assert slope([(x, 3.0 * x + 1) for x in range(50)]) == pytest.approx(3.0)
    assert slope([(1.0, 2.0)]) == 0.0


def test_quantiles_of_few_values() -> None:
    assert load.quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert load.quantile([1.0], 0.99) == 1.0


@pytest.mark.parametrize("size", [512, 4096, 1 << 20])
def test_a_body_has_about_the_size_asked_for(size: int) -> None:
    content = bodies.pinned(size).partition(b"\r\n\r\n")[2]
    assert abs(len(content) - size) <= 2
    assert json.loads(content)["model"] == "bench/other"


def test_the_mix_has_its_sizes_and_streams() -> None:
    mix = bodies.mix()
    assert len(mix) == 1000
    assert sum(len(request) > 4_000_000 for request in mix) == 5
    assert 50 < sum(load.STREAMED in request for request in mix) < 150


def test_no_conversation_is_asked_twice() -> None:
    both = [*bodies.asked(64, 20), *bodies.asked(1024, 20)]
    assert len(set(both)) == 40
    assert len(json.loads(both[-1].partition(b"\r\n\r\n")[2])["messages"]) == 16
