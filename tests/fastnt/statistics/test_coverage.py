"""Studies simulated with known truth: how often intervals hold it, and how often verdicts err.

2,000 studies each, fixed seeds: a rate of 95 % is known to half a point (one standard deviation).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnt.statistics import best_of_k, compare, holm, paired_t, two_way

pytestmark = pytest.mark.slow
Array = np.ndarray[Any, Any]
# Answers wrong or not, or losses, of the setting and of the baseline: (studies, seeds, images) each.
World = Callable[[np.random.Generator, int, int], tuple[Array, Array]]
STUDIES, IMAGES, SETTINGS = 2_000, 360, 10
SEEDS = pytest.mark.parametrize("seeds", [3, 5, 10])


def _covered(differences: Array, truth: Array | float) -> float:
    truths = np.broadcast_to(truth, len(differences))
    return float(
        np.mean(
            [t in paired_t(d, IMAGES).interval for d, t in zip(differences, truths, strict=True)]
        )
    )


@SEEDS
def test_paired_t_covers(seeds: int) -> None:
    d = np.random.default_rng(seeds).normal(0.02, 0.01, (STUDIES, seeds))
    assert 0.93 <= _covered(d, 0.02) <= 0.97


@SEEDS
@pytest.mark.parametrize("pilots", [1, 2])
def test_paired_t_covers_a_setting_that_pilot_seeds_chose(seeds: int, pilots: int) -> None:
    random = np.random.default_rng([seeds, pilots])
    truth = random.normal(0, 0.005, (STUDIES, 1, SETTINGS))
    d = truth + random.normal(0, 0.01, (STUDIES, pilots + seeds, SETTINGS))
    held_out = d[:, :pilots] + random.normal(0, 0.005, (STUDIES, pilots, SETTINGS))
    chosen = held_out.mean(1).argmin(1)
    studies = np.arange(STUDIES)
    assert 0.93 <= _covered(d[studies, pilots:, chosen], truth[studies, 0, chosen]) <= 0.97


@SEEDS
@pytest.mark.parametrize("deviation", [1, 2, 10])
def test_paired_t_covers_whole_counts(seeds: int, deviation: int) -> None:
    random = np.random.default_rng([seeds, deviation])
    truth = random.uniform(-5, 5, (STUDIES, 1))
    counts = random.normal(truth, deviation, (STUDIES, seeds)).round()
    found = _covered(counts / IMAGES, truth[:, 0] / IMAGES)
    assert found >= 0.93
    if deviation > 1:
        assert found <= 0.97


def _losses(shared: float, of_seed: float, of_image: float) -> World:
    """Losses with the mean difference ``shared``, which seeds and images vary, and of deviation 1."""

    def world(random: np.random.Generator, studies: int, seeds: int) -> tuple[Array, Array]:
        setting = shared + random.standard_normal((studies, seeds, IMAGES))
        setting += of_seed * random.standard_normal((studies, seeds, 1))
        setting += of_image * random.standard_normal((studies, 1, IMAGES))
        return setting, np.zeros_like(setting)

    return world


def _answers(draw_mended: Callable[[np.random.Generator, int, int], Array] | None) -> World:
    """Right or wrong answers to images of very different difficulty, 9 % wrong in the mean.

    ``draw_mended`` gives the probability that the setting mends an image that would be wrong.
    """

    def world(random: np.random.Generator, studies: int, seeds: int) -> tuple[Array, Array]:
        difficulty = random.beta(0.3, 3, (studies, 1, IMAGES))  # mean 1 / 11
        mended = 0.0 if draw_mended is None else draw_mended(random, studies, seeds)
        shape = (studies, seeds, IMAGES)
        return random.random(shape) < difficulty * (1 - mended), random.random(shape) < difficulty

    return world


WORLDS: dict[str, tuple[World, float]] = {  # each with its true difference
    "losses, no effect": (_losses(0, 0, 0), 0),
    "losses, an effect that images share": (_losses(0.3, 0.05, 0), 0.3),
    "losses, an effect that differs by image": (_losses(0.1, 0.03, 1), 0.1),
    "losses, an effect that differs a little by image": (_losses(0.1, 0.03, 0.5), 0.1),
    "answers, no effect": (_answers(None), 0),
    "answers, an effect that images share": (
        _answers(lambda random, studies, seeds: random.uniform(0, 0.6, (studies, seeds, 1))),
        -0.3 / 11,
    ),
    "answers, an effect that differs by image": (
        _answers(lambda random, studies, seeds: random.random((studies, 1, IMAGES)) < 0.3),
        -0.3 / 11,
    ),
}


@SEEDS
@pytest.mark.parametrize("name", WORLDS)
def test_two_way_covers(name: str, seeds: int) -> None:
    world, truth = WORLDS[name]
    random, covered = np.random.default_rng([list(WORLDS).index(name), seeds]), []
    for _ in range(STUDIES // 100):
        studies = zip(*world(random, 100, seeds), strict=True)
        covered += [truth in two_way(setting, baseline) for setting, baseline in studies]
    assert 0.93 <= np.mean(covered) <= 0.98


@SEEDS
def test_for_these_images_alone_the_interval_would_mislead_where_images_differ(seeds: int) -> None:
    """What the crossed interval is for: the other one covers far less than it says."""
    world, truth = WORLDS["losses, an effect that differs by image"]
    random = np.random.default_rng(seeds)
    setting, baseline = world(random, 500, seeds)
    assert _covered((setting - baseline).mean(2), truth) < 0.9


@SEEDS
def test_the_verdict_seldom_claims_an_effect_that_is_not_there(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    setting, baseline = _answers(None)(random, STUDIES, seeds)
    verdicts = [compare(s, b).verdict for s, b in zip(setting, baseline, strict=True)]
    assert np.mean([v in ("better", "worse") for v in verdicts]) <= 0.07


@SEEDS
def test_holm_errs_in_few_families(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    d = random.normal(0, 0.01, (STUDIES, seeds, SETTINGS))
    d -= random.normal(0, 0.01, (STUDIES, seeds, 1))  # the baseline that all settings share
    errs = [(holm([paired_t(each, IMAGES).p for each in study.T]) < 0.05).any() for study in d]
    assert np.mean(errs) <= 0.06


@pytest.mark.parametrize("seeds", [5, 10])
def test_the_best_of_many_is_seldom_found_where_there_is_no_effect(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    d = random.normal(0, 0.01, (STUDIES, seeds, SETTINGS))
    d -= random.normal(0, 0.01, (STUDIES, seeds, 1))
    found = [best_of_k(study) for study in d]
    # Of the 2**seeds patterns, equally likely, those within .05 are a whole number.
    level = int(0.05 * 2**seeds) / 2**seeds
    assert np.mean([each.p <= 0.05 for each in found]) == pytest.approx(level, abs=0.012)
    # What is expected is what happens, while the mean over seeds of one setting gains nothing.
    gains = np.array([each.gain for each in found])
    assert np.mean([e.expected_gain for e in found]) == pytest.approx(gains.mean(), rel=0.05)
    assert gains.mean() > 0.003
