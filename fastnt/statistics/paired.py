"""Paired differences between a setting and its baseline over seeds: intervals, p values and power.

Seeds are paired: within a seed both students share initial weights, order and noise words.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from fastnt.statistics.counts import Interval


@dataclass(frozen=True)
class Paired:
    """Paired differences over seeds, as fractions of the test images."""

    mean: float
    deviation: float  # over seeds, at least one image / sqrt(12)
    n: int  # seeds
    interval: Interval  # for these test images
    p: float  # two-sided


def paired_t(differences: ArrayLike, images: int, confidence: float = 0.95) -> Paired:
    """Return Student's paired t test and interval over seeds, for these test images.

    A difference is a whole number of images. Its standard deviation is therefore taken to be at least
    one image / sqrt(12), that of rounding to whole images. Without this, three seeds with the same
    difference would give p = 0.

    Args:
        differences: (seeds,), error of the setting minus that of the baseline, fractions.
        images: number of test images.
        confidence: of the interval.

    Raises:
        ValueError: fewer than 2 seeds, a difference that is not finite, no images, or a confidence
            that is not between 0 and 1.
    """
    values = np.asarray(differences, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all() or images < 1:
        raise ValueError(
            "paired_t takes finite differences of at least 2 seeds and at least 1 image, got shape "
            f"{values.shape} and {images} images"
        )
    n, mean = len(values), float(values.mean())
    deviation = max(float(values.std(ddof=1)), 1 / (images * math.sqrt(12)))
    standard_error = deviation / math.sqrt(n)
    half = t_quantile(n - 1, confidence) * standard_error
    p = 2 * float(special.stdtr(n - 1, -abs(mean) / standard_error))
    return Paired(mean, deviation, n, Interval(mean - half, mean + half), p)


def two_way(
    wrong_setting: ArrayLike, wrong_baseline: ArrayLike, confidence: float = 0.95
) -> Interval:
    """Return an interval for the difference on other seeds and other test images of the same kind.

    Seeds and images are random and crossed. With the mean squares MS of the differences, the mean
    has the variance max(MS_seed + MS_image - MS_rest, MS_seed) / (seeds * images), with
    Satterthwaite's degrees of freedom, at least seeds - 1. MS_seed has the floor of ``paired_t``.
    An interval for more images is never narrower than one for these: where the degrees of freedom
    would make it so, it is as wide as ``paired_t``'s. (Without this it covers 93 % at 3 seeds where
    images differ little; with it, 95 %.)

    Source: Satterthwaite, An approximate distribution of estimates of variance components (1946).

    Args:
        wrong_setting, wrong_baseline: (seeds, images) bool, whether each student gets each test
            image wrong; or losses of each image on the scale of 0 to 1, for which the floor is made.
        confidence: of the interval.

    Raises:
        ValueError: fewer than 3 seeds or 2 images, shapes that differ, losses that are not finite, or
            a confidence that is not between 0 and 1.
    """
    setting, baseline = np.asarray(wrong_setting), np.asarray(wrong_baseline)
    if setting.shape != baseline.shape or setting.ndim != 2:
        raise ValueError(
            "two_way takes two arrays of one shape (seeds, images), got "
            f"{setting.shape} and {baseline.shape}"
        )
    n, m = setting.shape
    if n < 3 or m < 2:
        raise ValueError(f"two_way needs at least 3 seeds and 2 images, got {n} and {m}")
    differences = np.subtract(setting, baseline, dtype=float)
    mean = differences.mean()
    if not np.isfinite(mean):
        raise ValueError("two_way takes finite losses, got some that are not")
    of_seed, of_image = differences.mean(1) - mean, differences.mean(0) - mean
    rest = differences - mean - of_seed[:, None] - of_image
    df_seed, df_image, df_rest = n - 1, m - 1, (n - 1) * (m - 1)
    ms_seed = max(m * (of_seed @ of_seed) / df_seed, 1 / (12 * m))
    ms_image = n * (of_image @ of_image) / df_image
    ms_rest = np.square(rest).sum() / df_rest
    # Satterthwaite: c**2 / sum of (each term)**2 / (its degrees of freedom).
    combined = ms_seed + ms_image - ms_rest
    spread = ms_seed**2 / df_seed + ms_image**2 / df_image + ms_rest**2 / df_rest
    df = max(combined**2 / spread, df_seed)
    half = max(
        t_quantile(df, confidence) * math.sqrt(max(combined, ms_seed) / (n * m)),
        t_quantile(df_seed, confidence) * math.sqrt(ms_seed / (n * m)),
    )
    return Interval(float(mean - half), float(mean + half))


def smallest_effect(deviation: float, seeds: int, power: float = 0.8, level: float = 0.05) -> float:
    """Return the smallest true difference that ``paired_t`` finds with probability ``power``.

    The t statistic of a true difference d is noncentral with parameter d * sqrt(seeds) / deviation;
    finding d with the wrong sign does not count.

    Args:
        deviation: of the paired differences over seeds, in any unit; the result has the same.
        seeds: at least 2.
        power: strictly between level and 1.
        level: two-sided; under Holm over K settings, the first is tested at level / K.

    Raises:
        ValueError: an argument is outside these bounds.
    """
    if seeds < 2 or not 0 < level < power < 1 or not 0 <= deviation < math.inf:
        raise ValueError(
            "smallest_effect needs at least 2 seeds, 0 < level < power < 1 and a finite deviation, "
            f"got {seeds} seeds, level {level}, power {power}, deviation {deviation}"
        )
    critical = t_quantile(seeds - 1, 1 - level)
    noncentrality = special.nctdtrinc(seeds - 1, 1 - power, critical)
    return float(noncentrality * deviation / math.sqrt(seeds))


def t_quantile(df: float, confidence: float) -> float:
    """Return half the width, in standard errors, of the two-sided interval of Student's t.

    Raises:
        ValueError: confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    return float(special.stdtrit(df, (1 + confidence) / 2))
