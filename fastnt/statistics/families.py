"""Many settings against one baseline: what testing them all, or choosing the best, does to p values."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_EXACT = 12  # seeds up to which all 2**n sign patterns are used
_PATTERNS = 2**_EXACT


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjusted p values, in the order given: below .05 the family's error is at most .05.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979): the i-th smallest
    of K, from 0, is multiplied by K - i, and none is smaller than the one before.

    Args:
        p_values: (K,), each in [0, 1]; K may be 0.

    Raises:
        ValueError: another shape, or a value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values must be an array (K,) of values in [0, 1], got {p_values!r}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


@dataclass(frozen=True)
class BestOfK:
    """The best of K settings beside what the best shows where no setting has an effect."""

    setting: int  # its column
    gain: float  # its mean gain over the baseline, a fraction of the test images
    expected_gain: float  # of the best of K, where there is no effect
    p: float  # probability of this gain or more, where there is no effect


def best_of_k(differences: ArrayLike) -> BestOfK:
    """What the best of K settings, chosen by test error, shows where there is no effect at all.

    Without an effect a seed's differences may as well have the other sign, all of its settings
    together, since they share a baseline. Every pattern of signs over the seeds gives a largest mean
    gain; p is the share of patterns whose gain is at least the one found. All 2**n patterns are
    used for up to 12 seeds, and beyond 12 the pattern found and 4095 random ones, always the same.
    p is no smaller than 1 / 2**n: .125 with 3 seeds.

    Source: the sign-flip permutation test of the largest statistic (Westfall and Young,
    Resampling-based multiple testing, 1993).

    Args:
        differences: (seeds, settings), error of each setting minus the baseline's, fractions.

    Raises:
        ValueError: another shape, nothing in it, or a value that is not finite.
    """
    values = np.asarray(differences, dtype=float)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"differences must be a finite array (seeds, settings), got shape {values.shape}"
        )
    seeds = len(values)
    if seeds <= _EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=seeds)))
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), (_PATTERNS, seeds))
        signs[0] = 1
    gains = (signs @ -values / seeds).max(1)  # the first pattern is the one found
    found = gains[0]
    rounding = 1e-12 * np.abs(values).max()  # equal gains, summed in another order, are equal
    setting = int(values.sum(0).argmin())
    return BestOfK(
        setting, float(found), float(gains.mean()), float((gains >= found - rounding).mean())
    )
