"""Tests that may be looked at any time: e-processes for the difference of two rates, and for one mean.

An e-process is a running figure E >= 0 that starts at 1 and, as long as the null hypothesis holds, is no
more than 1 on average at any moment one may choose to look. So by Ville's inequality (1939) it ever
reaches 1/alpha with a chance of at most alpha, however often it is looked at: no correction for peeking.

**Two arms.** In a window of time n_c answers of the canary and n_b of the baseline came in, each bad by a
number in [0, 1] (0 or 1 for an error; anything between for a similarity). The null hypothesis is

    mean_c <= ratio * mean_b + offset        (or >= for the test of being good)

with both means unknown and free to change from window to window. For an alternative that is `r` times the
null's edge, with q = ratio * n_c / (ratio * n_c + n_b) and its counterpart q' for r * ratio, the window's
factor is

    a^bad_c * b^bad_b * exp(-offset * n_c * (a - 1)),    a = q'/q,  b = (1-q')/(1-q)

the likelihood ratio of "which arm did each bad answer come from" (Przyborowski and Wilenski 1940: two
Poisson rates, conditioned on their sum). It is an e-value without any assumption about the distribution:
for y in [0, 1] convexity gives a^y <= 1 + y(a-1) <= exp(y-mean (a-1)) on average, so the factor's mean is
at most exp(n_c (mean_c - offset) (a-1) + n_b mean_b (b-1)) <= exp(mean_b (ratio n_c (a-1) + n_b (b-1))) = 1,
the last because q a + (1-q) b = 1. For r < 1, a < 1 turns the inequalities of the null hypothesis around.

Since each window has its own factor, whatever changes with time changes for both arms: drift over the
day does not count against the canary (the reasoning of Cochran 1954 and Mantel and Haenszel 1959).

**One arm**, against a fixed edge: the likelihood ratio of Bernoulli(p) to Bernoulli(edge), an e-value for
any mean in [0, 1] by the same convexity (Waudby-Smith and Ramdas 2024, estimating means by betting).

**Mixture.** The alternative is unknown, so factors are kept for several and their e-values averaged, which
is an e-value again (Robbins 1970; the mixture SPRT). **Correlated answers**: see `dispersion`.

See also Grünwald, de Heide and Koolen 2024 (safe testing), and Turner, Ly and Grünwald 2024 for a sharper
two-sample e-value that cannot take a margin as simply (docs/adr/0014-sequential-tests.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from operator import mul

WORSE = (1.15, 1.4, 1.8, 2.5, 4.0, 8.0)
"""Alternatives of the test for worse: the canary's rate by the null's edge. Half of them for effects as
small as anyone minds, half for a canary that is broken; their average loses at most ln 6 = 1.8 nats
against knowing the effect beforehand."""

GOOD = (0.85, 0.7, 0.5, 0.35, 0.2, 0.05)
"""Alternatives of the test for good, likewise."""


def two_arms(
    canary: tuple[float, float], baseline: tuple[float, float], ratio: float, offset: float, r: float
) -> float:
    """The logarithm of a window's factor for one alternative.

    Shapes: each arm is (bad answers, answers), the first at most the second; ratio and r above 0,
    offset not negative. An arm without answers gives 0: the window says nothing.
    """
    bad_canary, n_canary = canary
    bad_baseline, n_baseline = baseline
    if not n_canary or not n_baseline:
        return 0.0
    null, alternative = ratio * n_canary + n_baseline, r * ratio * n_canary + n_baseline
    a, b = r * null / alternative, null / alternative
    return bad_canary * log(a) + bad_baseline * log(b) - offset * n_canary * (a - 1)


def one_arm(canary: tuple[float, float], edge: float, r: float) -> float:
    """The logarithm of a window's factor against `mean <= edge` (r > 1) or `mean >= edge` (r < 1).

    The alternative is the edge with its odds multiplied by r, which keeps it inside (0, 1).
    Shapes: (bad answers, answers); edge in (0, 1).
    """
    bad, n = canary
    whole = 1 + edge * (r - 1)
    return bad * log(r / whole) - (n - bad) * log(whole)


def mixture(logs: Sequence[float], dispersion: float = 1.0) -> float:
    """The logarithm of the average of e-values given by their logarithms, each divided by `dispersion`.

    Dividing by d >= 1 keeps an e-value an e-value (Jensen), and is what a likelihood ratio needs when d
    answers carry the information of one (quasi-likelihood, Wedderburn 1974). Shapes: none gives 0.
    """
    if not logs:
        return 0.0
    scaled = [value / dispersion for value in logs]
    top = max(scaled)
    return top + log(sum([exp(value - top) for value in scaled]) / len(scaled))


def dispersion(bad: Sequence[float], n: Sequence[float], *, bernoulli: bool = False) -> float:
    """By how much answers vary between groups of sessions beyond what independent ones would; at least 1.

    Requests of one session are alike: ten errors of one session are not ten sessions with an error.
    Sessions are independent, so the sums over groups of whole sessions are too, and how much these vary
    around the arm's mean shows the correlation, of whatever kind, without keeping any session (random
    groups: Wolter 2007, chapter 2; the buckets of Chamandy et al. 2012). The result is the usual design
    effect. The reference is the variance that the test assumes: Poisson's, or `bernoulli`'s.

    Shapes: both by group, of the same length; groups without answers count for nothing.
    """
    total, groups = sum(n), sum(map(bool, n))
    if groups < 2:
        return 1.0
    mean, sizes = sum(bad) / total, _dot(n, n)
    # A group's own share in the mean takes something off its expected square; groups differ in size.
    reference = mean * (1 - mean if bernoulli else 1.0) * (total - sizes / total)
    if reference <= 0:
        return 1.0
    squares = _dot(bad, bad) - 2 * mean * _dot(bad, n) + mean * mean * sizes
    return max(1.0, squares / reference)


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return float(sum(map(mul, one, other)))
