"""One network's error, and two networks compared, on the same test images."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special  # scipy.stats takes a second to import

from fastnt.wording import signed


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float

    def in_points(self, to: str = " to ") -> str:
        """Return an interval of a difference of fractions in percentage points, as ``-0.20 to +0.05``."""
        return f"{signed(100 * self.low)}{to}{signed(100 * self.high)}"

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson(wrong: int, images: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for the error of a network that got ``wrong`` of ``images`` wrong.

    Source: Wilson, Probable inference, the law of succession, and statistical inference (1927).

    Args:
        wrong: from 0 to images.
        images: number of test images, at least 1.
        confidence: strictly between 0 and 1.

    Raises:
        ValueError: an argument is outside these bounds.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    if images < 1 or not 0 <= wrong <= images:
        raise ValueError(f"wrong must be from 0 to images, at least 1, got {wrong} of {images}")
    z = float(special.ndtri((1 + confidence) / 2))
    middle = wrong + z**2 / 2
    half = z * math.sqrt(wrong * (images - wrong) / images + z**2 / 4)
    low, high = (middle - half) / (images + z**2), (middle + half) / (images + z**2)
    return Interval(max(0.0, low), min(1.0, high))


def mcnemar(wrong_a: ArrayLike, wrong_b: ArrayLike) -> float:
    """Two-sided p value of McNemar's exact test: do two networks err equally often?

    Source: McNemar, Note on the sampling error of the difference between correlated proportions
    (1947), with the binomial distribution in place of its approximation: each image that only
    one of the networks gets wrong is the one's or the other's with probability 1/2.

    Args:
        wrong_a, wrong_b: (images,) bool, whether each network gets each test image wrong.

    Raises:
        ValueError: they are not bool, or not of one shape (images,).
    """
    a, b = np.asarray(wrong_a), np.asarray(wrong_b)
    if a.ndim != 1 or a.shape != b.shape or a.dtype != np.bool_ or b.dtype != np.bool_:
        raise ValueError(
            "mcnemar takes two bool arrays of one shape (images,), got "
            f"{a.dtype} {a.shape} and {b.dtype} {b.shape}"
        )
    return mcnemar_counts(int((a & ~b).sum()), int((b & ~a).sum()))


def mcnemar_counts(only_a: int, only_b: int) -> float:
    """Return ``mcnemar`` from the numbers of images that only the one or only the other gets wrong.

    Raises:
        ValueError: a count is negative.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"the counts must not be negative, got {only_a} and {only_b}")
    tail = special.bdtr(min(only_a, only_b), only_a + only_b, 0.5)
    return min(1.0, 2 * float(tail))
