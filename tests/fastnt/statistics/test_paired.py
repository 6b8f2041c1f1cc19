"""Paired differences over seeds: scipy's t test, closed forms of the crossed interval, known powers."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import stats

from fastnt.statistics import paired_t, smallest_effect, t_quantile, two_way

Wrong = np.ndarray[Any, Any]


def pairs() -> st.SearchStrategy[tuple[Wrong, Wrong]]:
    shapes = st.tuples(st.integers(3, 6), st.integers(2, 12))
    return shapes.flatmap(lambda s: st.tuples(npst.arrays(bool, s), npst.arrays(bool, s)))


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_paired_t_is_scipys(seeds: int) -> None:
    setting, baseline = np.random.default_rng(seeds).normal(0.1, 0.02, (2, seeds))
    found = paired_t(setting - baseline, images=10_000)
    theirs = stats.ttest_rel(setting, baseline)
    bounds = theirs.confidence_interval()
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx((bounds.low, bounds.high))
    assert found.mean == pytest.approx((setting - baseline).mean())
    assert found.deviation == pytest.approx((setting - baseline).std(ddof=1))
    assert found.n == seeds
    wider = paired_t(setting - baseline, 10_000, confidence=0.99)
    theirs_wider = theirs.confidence_interval(0.99)
    assert wider.interval.low == pytest.approx(theirs_wider.low)


def test_equal_seeds_have_the_deviation_of_rounding_to_whole_images() -> None:
    found = paired_t([-4 / 360] * 3, images=360)
    assert found.deviation == pytest.approx(1 / 360 / math.sqrt(12))
    # t = 4 images / (1 / sqrt(12) / sqrt(3)) = 24 with 2 degrees of freedom: p = 1 - t / sqrt(2 + t^2)
    assert found.p == pytest.approx(1 - 24 / math.sqrt(2 + 24**2))
    assert paired_t([0.0, 0.0], images=360).p == 1


@pytest.mark.parametrize("values", [[], [0.1], [[0.1, 0.2]], [0.1, math.nan]])
def test_paired_t_refuses_what_shows_no_deviation(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 2 seeds"):
        paired_t(values, 360)
    with pytest.raises(ValueError, match="at least 1 image"):
        paired_t([0.1, 0.2], 0)


def test_two_way_has_the_variance_of_its_formula() -> None:
    d = np.random.default_rng(0).normal(size=(4, 50)) + np.linspace(-2, 2, 50)
    n, m = d.shape
    ms_seed, ms_image = m * d.mean(1).var(ddof=1), n * d.mean(0).var(ddof=1)
    total = (n * m - 1) * d.var(ddof=1)
    ms_rest = (total - (n - 1) * ms_seed - (m - 1) * ms_image) / ((n - 1) * (m - 1))
    variance = ms_seed + ms_image - ms_rest
    assert ms_image > 2 * ms_rest  # the world is one where images differ
    df = variance**2 / (
        ms_seed**2 / (n - 1) + ms_image**2 / (m - 1) + ms_rest**2 / ((n - 1) * (m - 1))
    )
    for confidence in (0.95, 0.5):
        low, high = stats.t(df, d.mean(), math.sqrt(variance / (n * m))).interval(confidence)
        found = two_way(d, np.zeros_like(d), confidence)
        assert (found.low, found.high) == pytest.approx((low, high))


def test_two_way_is_paired_t_where_images_do_not_differ() -> None:
    # Every image has the same share of seeds wrong: no variance over images.
    setting = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]], bool)
    setting = np.tile(setting, 5)
    found = two_way(setting, np.zeros_like(setting))
    expected = paired_t(setting.mean(1), setting.shape[1]).interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_two_way_knows_that_other_images_would_move_the_difference() -> None:
    # All seeds agree on every image; a tenth of the images is mended.
    baseline = np.ones((5, 100), bool)
    setting = np.tile(np.arange(100) >= 10, (5, 1))
    these, other = paired_t([-0.1] * 5, 100).interval, two_way(setting, baseline)
    assert other.high - other.low > 10 * (these.high - these.low)
    # The standard error is that of a proportion: sqrt(.1 * .9 / 99), and the floor adds next to nothing.
    assert (other.high - other.low) / 2 == pytest.approx(
        stats.t.ppf(0.975, 99) * math.sqrt(0.1 * 0.9 / 99), rel=0.01
    )


@given(pairs())
def test_two_way_is_no_narrower_than_for_these_images_and_knows_no_order(
    wrong: tuple[Wrong, Wrong],
) -> None:
    setting, baseline = wrong
    found = two_way(setting, baseline)
    these = paired_t(setting.mean(1) - baseline.mean(1), setting.shape[1]).interval
    assert found.low <= these.low + 1e-9
    assert found.high >= these.high - 1e-9
    mirrored = two_way(baseline, setting)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-12)
    turned = two_way(setting[::-1, ::-1], baseline[::-1, ::-1])
    assert (turned.low, turned.high) == pytest.approx((found.low, found.high), abs=1e-12)


@pytest.mark.parametrize("shape", [(2, 100), (3, 1), (3,), (3, 4, 5)])
def test_two_way_needs_three_seeds_and_two_images(shape: tuple[int, ...]) -> None:
    wrong = np.zeros(shape, bool)
    with pytest.raises(ValueError, match="two_way"):
        two_way(wrong, wrong)
    with pytest.raises(ValueError, match="one shape"):
        two_way(np.zeros((3, 4), bool), np.zeros((3, 5), bool))


def test_what_would_give_no_number_is_refused() -> None:
    losses = np.zeros((3, 4))
    for confidence in (0, 1, 95, math.nan):
        with pytest.raises(ValueError, match="confidence"):
            paired_t([0.1, 0.2], 360, confidence)
        with pytest.raises(ValueError, match="confidence"):
            two_way(losses, losses, confidence)
    with pytest.raises(ValueError, match="finite"):
        two_way(losses + math.nan, losses)


@pytest.mark.parametrize("seeds", [2, 3, 7, 30])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_the_smallest_effect_is_found_with_the_power_asked(seeds: int, level: float) -> None:
    for power in (0.5, 0.8, 0.99):
        effect = smallest_effect(0.3, seeds, power, level)
        critical = stats.t.ppf(1 - level / 2, seeds - 1)
        nc = effect * math.sqrt(seeds) / 0.3
        assert stats.nct.sf(critical, seeds - 1, nc) == pytest.approx(power, abs=1e-4)


def test_the_smallest_effect_in_many_simulated_studies() -> None:
    effect = smallest_effect(1.0, 5)
    d = np.random.default_rng(0).normal(effect, 1.0, (20_000, 5))
    assert (stats.ttest_1samp(d, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_more_seeds_or_less_deviation_show_smaller_effects() -> None:
    assert smallest_effect(0.075, 7) < 0.1 < smallest_effect(0.075, 6)  # a tenth of a point
    assert smallest_effect(0.075, 12, level=0.05 / 10) < 0.1  # the first of ten under Holm
    assert smallest_effect(0.15, 7) == pytest.approx(2 * smallest_effect(0.075, 7))
    assert smallest_effect(0.0, 7) == 0


@pytest.mark.parametrize(
    "arguments",
    [(0.1, 1), (-0.1, 3), (math.inf, 3), (0.1, 3, 1.0), (0.1, 3, 0.04), (0.1, 3, 0.8, 0)],
)
def test_smallest_effect_refuses_what_has_no_answer(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="smallest_effect"):
        smallest_effect(*arguments)  # type: ignore[arg-type]


def test_t_quantile_is_that_of_printed_tables() -> None:
    assert t_quantile(4, 0.95) == pytest.approx(2.776, abs=5e-4)
    assert t_quantile(9, 0.99) == pytest.approx(3.250, abs=5e-4)
    with pytest.raises(ValueError, match="between 0 and 1"):
        t_quantile(4, 1.0)
