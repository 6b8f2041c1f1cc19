"""p values where many settings are tested against one baseline, or the best of them is chosen."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_EXACT = 12  # up to so many seeds all 2**n sign patterns are used
_PATTERNS = 2**_EXACT


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's adjusted p values, in the order given.

    Calling those below .05 significant errs anywhere in the family with probability at most .05.

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
    """The best of K settings, and what the best would show if no setting had an effect."""

    setting: int  # its column
    gain: float  # its mean gain over the baseline, a fraction of the test images
    expected_gain: float  # the best setting's, if there is no effect
    p: float  # the probability of this gain or more, if there is no effect
    settings: int  # K
    seeds: int

    @property
    def least_p(self) -> float:
        """The least p that so many seeds can give: 1 / 2**seeds, from 12 on 1 / 4096."""
        return 0.5 ** min(self.seeds, _EXACT)


def best_of_k(differences: ArrayLike) -> BestOfK:
    """Return the best of K settings by test error, and how good the best would look without an effect.

    Without an effect, the differences of a seed are as likely to have the opposite signs. All settings
    of a seed change sign together, since they share its weights, order and noise. Each pattern of signs
    over the seeds gives a largest mean gain; p is the fraction of patterns whose gain is at least the
    observed one. Up to 12 seeds all 2**n patterns are used; beyond 12, the observed one and 4095
    random ones, the same in each call. p is never below ``BestOfK.least_p``, which is .125 with 3 seeds.

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
    gains = (signs @ -values / seeds).max(1)  # the first pattern is the observed one
    found = gains[0]
    rounding = 1e-12 * np.abs(values).max()  # equal gains, summed in another order, are equal
    return BestOfK(
        setting=int(values.sum(0).argmin()),
        gain=float(found),
        expected_gain=float(gains.mean()),
        p=float((gains >= found - rounding).mean()),
        settings=values.shape[1],
        seeds=seeds,
    )
