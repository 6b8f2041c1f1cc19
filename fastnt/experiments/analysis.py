"""Analyse a study: each setting against its baseline, and all settings as one family of tests."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastnt.experiments.results import StudyResults, When
from fastnt.experiments.study import Study
from fastnt.statistics import BestOfK, Comparison, best_of_k, compare, holm, smallest_effect

LEVEL = 0.05  # a difference stands out if its p, adjusted by Holm, is below
UNCLEAR = "unclear"  # the verdict where an interval leaves 0 out and Holm's p is not below LEVEL


@dataclass(frozen=True)
class SettingResult:
    """A setting's results over the seeds that it shares with its baseline; errors are fractions."""

    name: str
    baseline: str
    seeds: tuple[int, ...]
    held_out_error: float  # mean
    test_error: float  # mean
    deviation: float | None  # of the test error over seeds; None for one seed
    comparison: Comparison | None  # with the baseline; None for a baseline
    p_holm: float | None = None  # over all comparisons of the study
    p_holm_primary: float | None = None  # over those of the verdict alone
    paper: float | None = None  # the error that the paper prints, a fraction
    paper_gain: float | None = None  # relative to the paper's baseline
    primary: bool = False

    @property
    def stands_out(self) -> bool:
        """Whether Holm's p over all settings is below ``LEVEL``."""
        return self.p_holm is not None and self.p_holm < LEVEL

    @property
    def verdict(self) -> str | None:
        """The comparison's verdict; ``UNCLEAR`` if it is no finding among so many comparisons.

        A setting of the verdict is held to Holm's correction among those alone. None for a baseline.
        """
        if self.comparison is None:
            return None
        found = self.comparison.verdict
        p = self.p_holm_primary if self.primary else self.p_holm
        claims = found.startswith(("better", "worse"))
        return UNCLEAR if claims and (p is None or p >= LEVEL) else found

    @property
    def relative_gain(self) -> float | None:
        """(baseline - error) / baseline, as the paper's tables; None for a baseline."""
        if self.comparison is None:
            return None
        baseline = self.test_error - self.comparison.difference
        return -self.comparison.difference / baseline if baseline else None


@dataclass(frozen=True)
class Analysis:
    """The results of all settings of a study, in the study's order."""

    when: When
    settings: tuple[SettingResult, ...]
    best: BestOfK | None  # the best setting by test error; what it would show without an effect
    best_name: str
    chosen_by_pilots: tuple[str, ...]  # the primary settings, where pilot seeds chose them

    def setting(self, name: str) -> SettingResult | None:
        """Return the result of that name, if it has points."""
        return next((setting for setting in self.settings if setting.name == name), None)

    @property
    def baselines(self) -> list[str]:
        """The settings that others are compared with, by name."""
        return sorted({setting.baseline for setting in self.settings})

    @property
    def primary(self) -> list[SettingResult]:
        """The settings of the verdict that have points."""
        return [setting for setting in self.settings if setting.primary]


def analyse(results: StudyResults, when: When = "best") -> Analysis:
    """Compare each setting with its baseline, at each training's best or last epoch."""
    study = results.study
    chosen = _chosen_by_pilots(results, when)
    primary = chosen if study.tune else study.primary
    settings = []
    for setting in study.settings:
        result = _setting_result(results, setting.name, when)
        if result is not None:
            settings.append(replace(result, primary=setting.name in primary))
    settings = _with_holm(study, settings, primary)
    best, best_name = _best(results, when)
    return Analysis(when, tuple(settings), best, best_name, chosen)


def sees(result: SettingResult) -> float | None:
    """Return the difference that this paired t test finds with 80 % power; None below 3 seeds."""
    if result.comparison is None or result.comparison.paired is None or len(result.seeds) < 3:
        return None
    return smallest_effect(result.comparison.paired.deviation, result.comparison.seeds)


def _setting_result(results: StudyResults, name: str, when: When) -> SettingResult | None:
    study = results.study
    baseline = study.baseline_of(name)
    seeds = results.seeds(name, baseline)
    if not seeds:
        return None
    records = results.of(name, seeds)
    errors = np.array([record[f"{when}_test_error"] for record in records])
    comparison = None
    if baseline != name:
        comparison = compare(results.wrong(name, seeds, when), results.wrong(baseline, seeds, when))
    paper, base = study.setting(name).paper, study.setting(baseline).paper
    return SettingResult(
        name,
        baseline,
        tuple(seeds),
        float(np.mean([record[f"{when}_held_out_error"] for record in records])),
        float(errors.mean()),
        float(errors.std(ddof=1)) if len(errors) > 1 else None,
        comparison,
        paper=None if paper is None else paper / 100,
        paper_gain=(base - paper) / base if paper and base and name != baseline else None,
    )


def comparisons(study: Study, names: Iterable[str]) -> list[str]:
    """Return those of the settings that are compared with another one."""
    return [name for name in names if study.baseline_of(name) != name]


def _with_holm(
    study: Study, settings: Sequence[SettingResult], primary: Sequence[str]
) -> list[SettingResult]:
    """Add Holm's p values, over all comparisons of the study and over the primary ones.

    A comparison that has no p yet counts as 1, so that the family is the whole from the beginning.
    """
    found = {
        s.name: s.comparison.paired.p for s in settings if s.comparison and s.comparison.paired
    }

    def adjusted(names: list[str]) -> dict[str, float]:
        p = holm([found.get(name, 1.0) for name in names])
        return {name: float(p[i]) for i, name in enumerate(names) if name in found}

    every = adjusted(comparisons(study, (setting.name for setting in study.settings)))
    first = adjusted(comparisons(study, primary))
    return [
        replace(s, p_holm=every.get(s.name), p_holm_primary=first.get(s.name)) for s in settings
    ]


def _best(results: StudyResults, when: When) -> tuple[BestOfK | None, str]:
    """Return the setting with the largest mean gain; all have the same seeds, and none is a baseline."""
    study = results.study
    baselines = _baselines(study)
    names = [s.name for s in study.settings if s.name not in baselines and results.seeds(s.name)]
    pairs = [(name, study.baseline_of(name)) for name in names]
    seeds = results.seeds(*(name for pair in pairs for name in pair))
    if not pairs or len(seeds) < 2:
        return None, ""
    columns = [
        results.wrong(name, seeds, when).mean(1) - results.wrong(baseline, seeds, when).mean(1)
        for name, baseline in pairs
    ]
    best = best_of_k(np.array(columns).T)
    return best, pairs[best.setting][0]


def _baselines(study: Study) -> set[str]:
    return {study.baseline_of(setting.name) for setting in study.settings}


def _chosen_by_pilots(results: StudyResults, when: When) -> tuple[str, ...]:
    """Return for each family the setting whose pilots have the lowest mean held-out error.

    None is chosen before all pilots ended. A setting with a pilot that failed, or that is itself the
    baseline of others, is not chosen.
    """
    study = results.study
    if not study.tune:
        return ()
    ended = {(row["setting"], row["seed"]) for row in (*results.records, *results.failed)}
    found: dict[str, tuple[float, str]] = {}
    baselines = _baselines(study)
    for setting in study.settings:
        baseline = study.baseline_of(setting.name)
        if setting.name in baselines:
            continue
        if any((setting.name, seed) not in ended for seed in study.pilot_seeds):
            return ()
        seeds = results.seeds(setting.name, pilots=True)
        if len(seeds) < study.tune:
            continue
        records = results.of(setting.name, seeds)
        error = float(np.mean([record[f"{when}_held_out_error"] for record in records]))
        found[baseline] = min(found.get(baseline, (1.0, "")), (error, setting.name))
    return tuple(name for _, name in found.values())
