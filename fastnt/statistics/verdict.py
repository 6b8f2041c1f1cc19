"""The verdict on one setting against its baseline."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fastnt.statistics.counts import Interval
from fastnt.statistics.paired import Paired, paired_t, two_way

Verdict = Literal[
    "better",
    "worse",
    "better on these test images",
    "worse on these test images",
    "no difference seen",
    "no verdict from one seed",
]


@dataclass(frozen=True)
class Comparison:
    """A setting against the baseline over paired seeds."""

    difference: float  # mean error of the setting minus the baseline's, a fraction
    seeds: int
    images: int
    paired: Paired | None  # over seeds, for these test images; from 2 seeds on
    crossed: Interval | None  # for other seeds and other test images; from 3 seeds on
    verdict: Verdict

    @property
    def difference_in_images(self) -> float:
        """The mean difference as a number of test images."""
        return self.difference * self.images

    @property
    def interval(self) -> Interval | None:
        """The widest claim that the seeds allow: ``crossed``, else ``paired``'s; None for one seed."""
        if self.crossed is not None:
            return self.crossed
        return None if self.paired is None else self.paired.interval


def compare(wrong_setting: ArrayLike, wrong_baseline: ArrayLike) -> Comparison:
    """Compare two students over seeds, by ``paired_t`` and ``two_way``.

    Args:
        wrong_setting, wrong_baseline: (seeds, images) bool, whether each student gets each test
            image wrong; row by row the same seeds.

    Raises:
        ValueError: shapes that differ, no seeds, or fewer than 2 images.
    """
    setting, baseline = np.asarray(wrong_setting), np.asarray(wrong_baseline)
    if setting.shape != baseline.shape or setting.ndim != 2 or min(setting.shape) < 1:
        raise ValueError(
            "compare takes two arrays of one shape (seeds, images), got "
            f"{setting.shape} and {baseline.shape}"
        )
    seeds, images = setting.shape
    differences = setting.mean(1) - baseline.mean(1)
    paired = paired_t(differences, images) if seeds >= 2 else None
    crossed = two_way(setting, baseline) if seeds >= 3 else None
    found = verdict(paired.interval if paired else None, crossed)
    return Comparison(float(differences.mean()), seeds, images, paired, crossed, found)


def verdict(these_images: Interval | None, any_images: Interval | None) -> Verdict:
    """Return the verdict that two intervals of a difference in error allow.

    Args:
        these_images: over seeds, for the test images used (``paired_t``); None from one seed.
        any_images: for other test images too (``two_way``); None below three seeds.
    """
    if these_images is None:
        return "no verdict from one seed"
    if any_images is not None and 0 not in any_images:
        return "better" if any_images.high < 0 else "worse"
    if 0 not in these_images:
        return (
            "better on these test images" if these_images.high < 0 else "worse on these test images"
        )
    return "no difference seen"
