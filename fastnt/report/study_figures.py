"""Plot the main figure of a study: test error along a swept key, a heat map, or a row a setting."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastnt.experiments.analysis import Analysis, SettingResult
from fastnt.experiments.results import StudyResults
from fastnt.report.study_axes import Heat, Series, axis_of
from fastnt.report.study_marks import (
    colour_of,
    errors_of,
    half_width,
    plot_legend,
    plot_teacher,
    seeds_text,
)
from fastnt.report.study_rows import plot_rows
from fastnt.report.study_tables import is_papers_data
from fastnt.report.svg import BLUE, GREY, ORANGE, SERIES, WIDTH, Picture, render


def main_figure(results: StudyResults, analysis: Analysis) -> Picture:
    """Plot test error against what was swept, with the baseline, the teacher and the paper's errors."""
    title = f"Test error on {results.data['name']}, %"
    axis = axis_of(results, analysis)
    if isinstance(axis, Heat):
        heat = axis
        rows = len({y for _, y in heat.cells})
        return render(
            "main",
            title,
            lambda axes: _heat(axes, heat),
            size=(WIDTH, 1.2 + 0.36 * rows),
            caption="Mean test error over seeds, %; colour: the paired difference to the baseline "
            f"{', '.join(analysis.baselines)}, orange above it (worse) and blue below. "
            "n as in the table.",
        )
    caption = "Faint dots: single students. Marks: means, with 95 % t intervals over seeds"
    if axis is not None:
        name, series = axis
        return render(
            "main",
            title,
            lambda axes: _lines(axes, results, analysis, name, series),
            size=(WIDTH, 3.4),
            caption=f"{caption}. {_band_text(series)}"
            f"{seeds_text(analysis.settings)}{_paper_text(results, analysis)}",
        )
    return render(
        "main",
        title,
        lambda axes: plot_rows(axes, results, analysis),
        size=(WIDTH, 1.0 + 0.24 * len(analysis.settings)),
        caption=f"{caption}; blue: without noise, orange: with noise; *: a setting of the verdict. "
        f"{seeds_text(analysis.settings)}{_paper_text(results, analysis)}",
    )


def _lines(
    axes: Any, results: StudyResults, analysis: Analysis, name: str, series: Sequence[Series]
) -> None:
    values = [x for one in series for x, _ in one.points]
    wide = min(values) > 0 and max(values) >= 20 * min(values)
    step = min((b - a for a, b in pairwise(sorted(set(values)))), default=1.0)
    heights: list[float] = []
    ends: list[float] = []
    for number, one in enumerate(series):
        colour = SERIES[number % len(SERIES)]
        shift = 0.0 if wide else 0.14 * step * (number - (len(series) - 1) / 2)
        if one.baseline is not None and one.baseline.name not in {
            s.baseline.name for s in series[:number] if s.baseline
        }:
            ends += _band(axes, one.baseline, colour, series)
            heights.append(100 * one.baseline.test_error)
        x = np.array([value for value, _ in one.points]) + shift
        found = [setting for _, setting in one.points]
        for at, setting in zip(x, found, strict=True):
            errors = errors_of(results, setting, analysis)
            heights += errors
            aside = at / 1.06 if wide else at - 0.1 * step
            axes.plot([aside] * len(errors), errors, "o", color=colour, alpha=0.4, ms=3, mew=0)
        ends += _means(axes, x, found, colour, one.name or _name(results, found))
        if one.baselines:
            ends += _means(axes, x, one.baselines, BLUE, _name(results, one.baselines))
            for at, setting in zip(x, one.baselines, strict=True):
                errors = errors_of(results, setting, analysis)
                heights += errors
                aside = at * 1.06 if wide else at + 0.1 * step
                axes.plot([aside] * len(errors), errors, "o", color=BLUE, alpha=0.4, ms=3, mew=0)
        printed = [(a, s.paper) for a, s in zip(x, found, strict=True) if s.paper is not None]
        if printed and is_papers_data(results):
            a, p = zip(*printed, strict=True)
            errors = [100 * value for value in p]
            heights += errors
            axes.plot(a, errors, "D", mfc="none", color=GREY, ms=4.5, label="paper")
    if wide:
        axes.set_xscale("log")
    axes.set_xticks(sorted(set(values)), [f"{value:g}" for value in sorted(set(values))])
    axes.minorticks_off()
    axes.set_xlabel(name)
    axes.set_ylabel("test error, %")
    axes.grid(axis="y")
    plot_teacher(axes, results, heights, ends, vertical=False)
    plot_legend(axes)


def _name(results: StudyResults, settings: Sequence[SettingResult]) -> str:
    """Return what all settings of an unnamed series are, by their colour: noisy or clean."""
    colours = {colour_of(results, setting) for setting in settings}
    return "mean" if len(colours) > 1 else "noisy" if ORANGE in colours else "clean"


def _band(axes: Any, baseline: SettingResult, colour: str, series: Sequence[Series]) -> list[float]:
    mean = 100 * baseline.test_error
    half = 100 * half_width(baseline.deviation, len(baseline.seeds))
    shared = len({s.baseline.name for s in series if s.baseline}) == 1
    label = baseline.name if shared else None
    colour = BLUE if shared else colour
    axes.axhspan(mean - half, mean + half, color=colour, alpha=0.13, lw=0)
    axes.axhline(mean, color=colour, lw=1.2, ls=(0, (5, 2)), label=label)
    return [mean - half, mean + half]


def _means(
    axes: Any, x: Any, found: Sequence[SettingResult], colour: str, label: str
) -> list[float]:
    means = [100 * setting.test_error for setting in found]
    halves = [100 * half_width(setting.deviation, len(setting.seeds)) for setting in found]
    axes.errorbar(
        x, means, halves, color=colour, marker="o", ms=4.5, lw=1.2, elinewidth=1.2, label=label
    )
    return [m + sign * h for m, h in zip(means, halves, strict=True) for sign in (1, -1)]


def _heat(axes: Any, heat: Heat) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    xs, ys = (sorted({cell[axis] for cell in heat.cells}) for axis in (0, 1))
    differences = np.full((len(ys), len(xs)), np.nan)
    for (x, y), setting in heat.cells.items():
        assert setting.comparison is not None
        differences[ys.index(y), xs.index(x)] = setting.comparison.difference
    largest = np.nanmax(np.abs(differences)) or 1.0
    colours = LinearSegmentedColormap.from_list("change", ["#2f86c0", "#f2f2ee", "#e07b39"])
    axes.pcolormesh(differences, cmap=colours, vmin=-largest, vmax=largest, edgecolor="none")
    for (x, y), setting in heat.cells.items():
        at = xs.index(x) + 0.5, ys.index(y) + 0.5
        weight = "bold" if setting.stands_out else "normal"
        text = f"{100 * setting.test_error:.2f}"
        axes.text(*at, text, ha="center", va="center", color="#111111", fontsize=7, weight=weight)
    axes.set_xticks(np.arange(len(xs)) + 0.5, [f"{x:g}" for x in xs])
    axes.set_yticks(np.arange(len(ys)) + 0.5, [f"{y:g}" for y in ys])
    axes.set_xlabel(heat.x_key)
    axes.set_ylabel(heat.y_key)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _band_text(series: Sequence[Series]) -> str:
    if any(one.baselines for one in series):
        return "Blue: each setting's own baseline. "
    return f"Band: the baseline{'s' * (len(series) > 1)}, likewise. "


def _paper_text(results: StudyResults, analysis: Analysis) -> str:
    if not any(setting.paper for setting in analysis.settings):
        return ""
    if is_papers_data(results):
        return " Hollow: the errors that the paper prints (one student each)."
    return " The paper's errors are of other data and not drawn."
