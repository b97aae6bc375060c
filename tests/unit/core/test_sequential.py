"""The e-values: exact averages by enumeration, where the theory says at most 1."""

from __future__ import annotations

from itertools import product
from math import comb, exp, log

import pytest

from ext_proc.core.sequential import GOOD, WORSE, dispersion, mixture, one_arm, two_arms


def binomial(n: int, p: float) -> list[float]:
    return [comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


def average(n_canary: int, n_baseline: int, p_canary: float, p_baseline: float, *margin: float) -> float:
    """The mean of a window's factor over everything that can happen in it."""
    return sum(
        canary * baseline * exp(two_arms((bad, n_canary), (bad_too, n_baseline), *margin))
        for bad, canary in enumerate(binomial(n_canary, p_canary))
        for bad_too, baseline in enumerate(binomial(n_baseline, p_baseline))
    )


SIZES = [(3, 40), (20, 20), (40, 3), (1, 1)]
EDGES = [(1.0, 0.0), (1.0, 0.03), (1.5, 0.0), (1.2, 0.1)]


@pytest.mark.parametrize(("sizes", "edge"), list(product(SIZES, EDGES)))
@pytest.mark.parametrize("p_baseline", [0.0, 0.02, 0.3, 0.5])
def test_at_the_edge_and_within_a_factor_is_at_most_one_on_average(
    sizes: tuple[int, int], edge: tuple[float, float], p_baseline: float
) -> None:
    ratio, offset = edge
    at_edge = ratio * p_baseline + offset
    for r in WORSE:
        assert average(*sizes, at_edge, p_baseline, ratio, offset, r) <= 1 + 1e-9
        assert average(*sizes, at_edge / 2, p_baseline, ratio, offset, r) <= 1 + 1e-9
    for r in GOOD:
        assert average(*sizes, at_edge, p_baseline, ratio, offset, r) <= 1 + 1e-9
        assert average(*sizes, (1 + at_edge) / 2, p_baseline, ratio, offset, r) <= 1 + 1e-9


def test_beyond_the_edge_a_factor_grows() -> None:
    assert average(20, 20, 0.5, 0.1, 1.0, 0.0, 2.5) > 2
    assert average(20, 20, 0.02, 0.02, 1.0, 0.3, 0.2) > 10


@pytest.mark.parametrize("sizes", [(0, 50), (50, 0), (0, 0)])
def test_an_arm_without_answers_says_nothing(sizes: tuple[int, int]) -> None:
    n_canary, n_baseline = sizes
    assert two_arms((n_canary, n_canary), (0, n_baseline), 1.0, 0.03, 4.0) == 0


@pytest.mark.parametrize("edge", [0.01, 0.2, 0.5, 0.99])
def test_against_a_fixed_edge_a_factor_is_one_on_average_at_it(edge: float) -> None:
    for r in (*WORSE, *GOOD):
        chances = binomial(12, edge)
        mean = sum(chance * exp(one_arm((bad, 12), edge, r)) for bad, chance in enumerate(chances))
        assert mean == pytest.approx(1)


def test_a_mixture_is_the_average_of_the_e_values() -> None:
    assert mixture([0.0, log(3)]) == pytest.approx(log(2))
    assert mixture([1000.0, -1000.0]) == pytest.approx(1000 - log(2))
    assert mixture([]) == 0


def test_dispersion_divides_the_evidence_of_each() -> None:
    assert mixture([2.0, 4.0], 2.0) == pytest.approx(mixture([1.0, 2.0]))


def test_sessions_that_fail_as_a_whole_count_once() -> None:
    sizes = [10.0] * 64
    whole = [10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0] * 8
    single = [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 2.0] * 8
    assert dispersion(whole, sizes) == pytest.approx(8.9, abs=0.1)
    assert dispersion(whole, sizes, bernoulli=True) == pytest.approx(10.2, abs=0.1)
    assert dispersion(single, sizes) == 1


@pytest.mark.parametrize(
    ("bad", "n"), [([], []), ([0.0] * 4, [0.0] * 4), ([5.0, 0.0], [9.0, 0.0]), ([0.0] * 4, [9.0] * 4)]
)
def test_dispersion_without_anything_to_see_is_one(bad: list[float], n: list[float]) -> None:
    assert dispersion(bad, n) == 1
