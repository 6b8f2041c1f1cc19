"""Holm's adjustment and the best of K settings: a known example, scipy's permutations, symmetries."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastnt.statistics import best_of_k, holm


def test_holm_gives_the_known_values() -> None:
    # The example of Wikipedia's page on the Holm-Bonferroni method: two of four are rejected.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9, 0.6]) == pytest.approx([1, 1, 1])
    assert holm([0.04]) == pytest.approx([0.04])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_never_lowers_a_p(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    for (a, b), (adjusted_a, adjusted_b) in zip(
        itertools.combinations(p, 2), itertools.combinations(adjusted, 2), strict=True
    ):
        if a <= b:
            assert adjusted_a <= adjusted_b
    order = np.random.default_rng(len(p)).permutation(len(p))
    assert (holm(np.array(p, float)[order]) == adjusted[order]).all()
    rejected = np.flatnonzero(adjusted < 0.05)  # step by step, as Holm wrote it
    expected = []
    for step, k in enumerate(np.argsort(p, kind="stable")):
        if p[k] * (len(p) - step) >= 0.05:
            break
        expected.append(k)
    assert sorted(expected) == rejected.tolist()


@pytest.mark.parametrize("p", [[1.1], [-0.1], [math.nan], [[0.1]], 0.1])
def test_holm_refuses_what_is_no_p(p: object) -> None:
    with pytest.raises(ValueError, match="p_values"):
        holm(p)  # type: ignore[arg-type]


def test_one_setting_is_the_sign_flip_test() -> None:
    d = np.random.default_rng(3).normal(-0.5, 1, (9, 1))
    found = best_of_k(d)
    theirs = stats.permutation_test(
        (-d[:, 0],),
        np.mean,
        permutation_type="samples",
        alternative="greater",
        n_resamples=math.inf,
    )
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.setting, found.gain) == (0, pytest.approx(-d.mean()))
    assert found.expected_gain == pytest.approx(0, abs=1e-12)  # one setting has no choice


def test_the_best_of_two_opposite_settings_is_no_surprise() -> None:
    # Where one loses the other gains as much: the best of them gains without an effect too.
    d = np.array([[1.0, -1.0]] * 3)
    found = best_of_k(d)
    assert (found.setting, found.gain) == (1, 1.0)
    # |sum of three signs| / 3 is 1 in two of eight patterns and 1/3 in six.
    assert found.p == pytest.approx(2 / 8)
    assert found.expected_gain == pytest.approx((2 * 1 + 6 / 3) / 8)


@pytest.mark.parametrize("seeds", [1, 3, 10, 12])
def test_the_smallest_p_is_one_pattern_of_all(seeds: int) -> None:
    d = -np.random.default_rng(0).uniform(1, 2, (seeds, 4))
    assert best_of_k(d).p == best_of_k(d).least_p == 1 / 2**seeds


def test_equal_gains_count_whatever_the_rounding() -> None:
    # Whole images: many patterns give just the gain that was found.
    d = np.array([-1, -1, 1, -1, 1]) / 360
    assert best_of_k(d[:, None]).p == pytest.approx(sum(math.comb(5, k) for k in (3, 4, 5)) / 2**5)


def test_beyond_twelve_seeds_a_fixed_sample_comes_near_all_patterns() -> None:
    d = np.random.default_rng(5).normal(-0.4, 1, (14, 3))
    found = best_of_k(d)
    signs = np.array(list(itertools.product((1, -1), repeat=14)))
    gains = (signs @ -d / 14).max(1)
    assert found.p == pytest.approx((gains >= gains[0] - 1e-12).mean(), abs=0.02)
    assert found.expected_gain == pytest.approx(gains.mean(), abs=0.01)
    assert best_of_k(d) == found
    found = best_of_k(np.full((20, 2), -1.0))
    assert found.p == found.least_p == 1 / 4096
    assert (found.settings, found.seeds) == (2, 20)


@pytest.mark.parametrize("d", [[], [0.1], [[]], [[math.nan]]])
def test_best_of_k_refuses_what_is_no_table(d: object) -> None:
    with pytest.raises(ValueError, match=r"\(seeds, settings\)"):
        best_of_k(d)  # type: ignore[arg-type]
