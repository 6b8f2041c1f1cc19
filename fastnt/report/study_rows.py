"""Figures with a row for each setting: test errors, and paired differences."""

from collections.abc import Sequence
from typing import Any

from fastnt.experiments.analysis import Analysis, SettingResult
from fastnt.experiments.results import StudyResults
from fastnt.report.study_marks import colour_of, errors_of, half_width, plot_teacher, seeds_text
from fastnt.report.study_tables import is_papers_data
from fastnt.report.svg import BLUE, GREY, ORANGE, WIDTH, Picture, render


def forest_figure(analysis: Analysis) -> Picture | None:
    """Plot each paired difference with its two intervals; None if nothing is compared."""
    compared = [setting for setting in analysis.settings if setting.comparison is not None]
    if not compared:
        return None
    return render(
        "differences",
        "Paired differences in test error to the baseline, points",
        lambda axes: _forest(axes, compared),
        size=(WIDTH, 0.9 + 0.24 * len(compared)),
        caption="Left of 0, blue: the setting is better; right, orange: worse. Thick: 95 % interval "
        "over seeds, for these test images; thin: for other test images too (from 3 seeds on). "
        "Intervals are not adjusted for their number. *: a setting of the verdict; "
        "filled: Holm's p below .05. "
        f"{seeds_text(analysis.settings)}",
    )


def plot_rows(axes: Any, results: StudyResults, analysis: Analysis) -> None:
    """Plot each setting's errors in a row: blue without noise, orange with noise."""
    settings, values, ends = analysis.settings, list[float](), list[float]()
    for row, setting in enumerate(settings):
        colour = colour_of(results, setting)
        errors = errors_of(results, setting, analysis)
        mean, half = 100 * setting.test_error, 100 * half_width(setting.deviation, len(errors))
        values += errors
        ends += [mean - half, mean + half]
        axes.plot(errors, [row + 0.22] * len(errors), "o", color=colour, alpha=0.4, ms=3, mew=0)
        axes.errorbar(mean, row, xerr=half, color=colour, marker="o", ms=4.5, elinewidth=1.3)
        if setting.paper is not None and is_papers_data(results):
            values.append(100 * setting.paper)
            axes.plot(100 * setting.paper, row, "D", mfc="none", color=GREY, ms=4.5)
    shared = analysis.baselines
    if len(shared) == 1 and (baseline := analysis.setting(*shared)) is not None:
        mean = 100 * baseline.test_error
        half = 100 * half_width(baseline.deviation, len(baseline.seeds))
        axes.axvspan(mean - half, mean + half, color=BLUE, alpha=0.1, lw=0)
        axes.axvline(mean, color=BLUE, lw=1.2, ls=(0, (5, 2)), label=baseline.name)
    _name_rows(axes, settings)
    axes.set_xlabel("test error, %")
    plot_teacher(axes, results, values, ends, vertical=True)


def _forest(axes: Any, settings: Sequence[SettingResult]) -> None:
    axes.axvline(0, color=GREY, lw=1)
    for row, setting in enumerate(settings):
        found = setting.comparison
        assert found is not None
        clear = setting.stands_out
        colour = BLUE if found.difference < 0 else ORANGE
        if found.crossed is not None:
            ends = 100 * found.crossed.low, 100 * found.crossed.high
            axes.plot(ends, [row, row], color=colour, lw=1.1)
        if found.paired is not None:
            ends = 100 * found.paired.interval.low, 100 * found.paired.interval.high
            axes.plot(ends, [row, row], color=colour, lw=3.2, alpha=0.55, solid_capstyle="butt")
        face = colour if clear else "none"
        axes.plot(100 * found.difference, row, "o", color=colour, mfc=face, ms=5)
    _name_rows(axes, settings)
    axes.set_xlabel("difference in test error, points")


def _name_rows(axes: Any, settings: Sequence[SettingResult]) -> None:
    names = [f"{setting.name} *" if setting.primary else setting.name for setting in settings]
    axes.set_yticks(range(len(settings)), names)
    axes.set_ylim(len(settings) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
