"""Intervals of one error and McNemar's test: published values and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastnt.statistics import Interval, mcnemar, mcnemar_counts, wilson


@pytest.mark.parametrize(
    ("wrong", "images", "low", "high"),
    # Newcombe, Two-sided confidence intervals for the single proportion (1998), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(
    wrong: int, images: int, low: float, high: float
) -> None:
    found = wilson(wrong, images)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_solve_its_quadratic(case: tuple[int, int]) -> None:
    wrong, images = case
    error, z = wrong / images, stats.norm.ppf(0.975)
    found = wilson(wrong, images)
    assert 0 <= found.low <= found.high <= 1
    for bound in (found.low, found.high):  # each is as far from the error as z standard errors
        variance = bound * (1 - bound) / images
        assert (error - bound) ** 2 == pytest.approx(z**2 * variance, abs=1e-14)


def test_wilson_at_another_confidence() -> None:
    assert wilson(31, 360, 0.99).low < wilson(31, 360).low
    assert wilson(31, 360, 0.99).high > wilson(31, 360).high


@pytest.mark.parametrize(
    "arguments", [(1, 0), (-1, 3), (4, 3), (1, 3, 0.0), (1, 3, 1.0), (1, 3, math.nan)]
)
def test_wilson_refuses_what_is_no_count_or_no_confidence(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        wilson(*arguments)  # type: ignore[arg-type]


def test_an_interval_holds_its_bounds() -> None:
    assert 0 in Interval(0, 1)
    assert 1 in Interval(0, 1)
    assert -0.1 not in Interval(0, 1)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1), (5, 5, 1), (1, 9, 2 * (1 + 10) / 2**10), (0, 6, 2 / 2**6), (0, 1, 1)],
)
def test_mcnemar_is_the_binomial_tail(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar_counts(only_a, only_b) == pytest.approx(p)
    assert mcnemar_counts(only_b, only_a) == pytest.approx(p)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_scipys_binomial_test(only_a: int, only_b: int) -> None:
    theirs = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1
    assert mcnemar_counts(only_a, only_b) == pytest.approx(theirs, rel=1e-9, abs=1e-300)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(case: tuple[int, int]) -> None:
    for confidence in (0.5, 0.95, 0.999):
        theirs = stats.binomtest(*case).proportion_ci(confidence, method="wilson")
        found = wilson(*case, confidence)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_mcnemar_counts_only_images_on_which_the_networks_disagree() -> None:
    a = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1, 0], bool)
    b = np.array([0, 0, 0, 0, 0, 0, 1, 0, 1, 0], bool)
    assert mcnemar(a, b) == pytest.approx(mcnemar_counts(6, 1))
    assert mcnemar(a, a) == 1


def test_mcnemar_refuses_labels_and_other_shapes() -> None:
    ok = np.zeros(3, bool)
    for other in (np.zeros(3, int), np.zeros(4, bool), np.zeros((3, 1), bool)):
        with pytest.raises(ValueError, match="two bool arrays of one shape"):
            mcnemar(ok, other)
    with pytest.raises(ValueError, match="must not be negative"):
        mcnemar_counts(-1, 3)
