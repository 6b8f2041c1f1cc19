"""What is said of a setting: only what its intervals allow."""

import subprocess
import sys

import numpy as np
import pytest

from fastnt.statistics import Interval, Verdict, compare, verdict

GAIN, LOSS, OPEN = Interval(-2, -1), Interval(1, 2), Interval(-1, 1)


@pytest.mark.parametrize(
    ("these", "any_images", "words"),
    [
        (GAIN, GAIN, "better"),
        (LOSS, LOSS, "worse"),
        (GAIN, OPEN, "better on these test images"),
        (LOSS, OPEN, "worse on these test images"),
        (GAIN, None, "better on these test images"),
        (OPEN, OPEN, "no difference seen"),
        (OPEN, None, "no difference seen"),
        (Interval(-1, 0), OPEN, "no difference seen"),
        (None, None, "no verdict from one seed"),
    ],
)
def test_the_verdict_says_what_the_intervals_allow(
    these: Interval | None, any_images: Interval | None, words: Verdict
) -> None:
    assert verdict(these, any_images) == words


def _wrong(seeds: int, share: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((seeds, 1000)) < share


def test_a_large_gain_is_better_and_the_mirror_image_worse() -> None:
    baseline, setting = _wrong(5, 0.3, 0), _wrong(5, 0.1, 1)
    found, mirrored = compare(setting, baseline), compare(baseline, setting)
    assert (found.verdict, mirrored.verdict) == ("better", "worse")
    assert found.difference == pytest.approx(-0.2, abs=0.02)
    assert found.difference_in_images == pytest.approx(setting.sum() / 5 - baseline.sum() / 5)
    assert (found.seeds, found.images) == (5, 1000)
    assert found.paired is not None
    assert found.crossed is not None
    assert found.difference in found.crossed
    assert found.interval == found.crossed


def test_the_same_student_shows_no_difference() -> None:
    wrong = _wrong(3, 0.1, 0)
    assert compare(wrong, wrong).verdict == "no difference seen"


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_say_less(seeds: int) -> None:
    baseline = np.ones((seeds, 50), bool)
    setting = baseline.copy()
    setting[:, :10] = False
    found = compare(setting, baseline)
    assert found.crossed is None
    assert (found.paired is None) == (seeds == 1)
    assert found.interval == (found.paired and found.paired.interval)
    assert found.verdict == {1: "no verdict from one seed", 2: "better on these test images"}[seeds]


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5,), (2, 4)])
def test_compare_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"one shape \(seeds, images\)"):
        compare(np.zeros(shape, bool), np.zeros((2, 5) if shape == (2, 4) else shape, bool))


def test_statistics_need_no_torch() -> None:
    code = "import sys, fastnt.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
