"""The two figures of a study's errors: along what was swept, and the paired differences."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import special

from fastnt.experiments.analysis import Analysis, SettingResult
from fastnt.experiments.results import StudyResults
from fastnt.report.study_axes import Heat, Series, axis_of
from fastnt.report.study_tables import is_papers_data
from fastnt.report.svg import BLUE, GREY, INK, LINE, ORANGE, SERIES, WIDTH, Picture, draw


def main_figure(results: StudyResults, analysis: Analysis) -> Picture:
    """Draw test error against what was swept, beside the baseline, the teacher and the paper."""
    title = f"Test error on {results.data['name']}, %"
    axis = axis_of(results, analysis)
    if isinstance(axis, Heat):
        heat = axis
        rows = len({y for _, y in heat.cells})
        return draw(
            "main",
            title,
            lambda axes: _heat(axes, heat),
            size=(WIDTH, 1.2 + 0.36 * rows),
            caption="Mean test error over seeds, %; colour: the paired difference to the baseline "
            f"{_baseline_text(analysis)}, orange above it (worse) and blue below. n as in the table.",
        )
    caption = "Faint dots: single students. Marks: means, with 95 % t intervals over seeds"
    if axis is not None:
        name, series = axis
        return draw(
            "main",
            title,
            lambda axes: _lines(axes, results, analysis, name, series),
            size=(WIDTH, 3.4),
            caption=f"{caption}. Band: the baseline{'s' * (len(series) > 1)}, likewise. "
            f"{_seeds_text(analysis)}{_paper_text(results, analysis)}",
        )
    return draw(
        "main",
        title,
        lambda axes: _rows(axes, results, analysis),
        size=(WIDTH, 1.0 + 0.24 * len(analysis.settings)),
        caption=f"{caption}; blue: without noise, orange: with noise. "
        f"{_seeds_text(analysis)}{_paper_text(results, analysis)}",
    )


def forest_figure(analysis: Analysis) -> Picture | None:
    """Draw each paired difference with its two intervals; None where nothing is compared."""
    compared = [setting for setting in analysis.settings if setting.comparison is not None]
    if not compared:
        return None
    return draw(
        "differences",
        "Paired differences in test error to the baseline, points",
        lambda axes: _forest(axes, compared),
        size=(WIDTH, 0.9 + 0.24 * len(compared)),
        caption="Left of 0 the setting is better. Thick: 95 % interval over seeds, for these test "
        "images; thin: for other test images too (from 3 seeds on). Intervals are not adjusted for "
        "their number. Bold names: the settings of the verdict; filled: Holm's p below .05. "
        f"{_seeds_text(analysis)}",
    )


def half_width(deviation: float | None, n: int) -> float:
    """Half the 95 % t interval of a mean over n seeds; 0 for one seed."""
    if deviation is None:
        return 0.0
    return float(special.stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)


def errors_of(results: StudyResults, setting: SettingResult, analysis: Analysis) -> list[float]:
    """Return the test errors of a setting's students, percent."""
    name = f"{analysis.when}_test_error"
    return [100 * record[name] for record in results.of(setting.name, setting.seeds)]


def _lines(
    axes: Any, results: StudyResults, analysis: Analysis, name: str, series: Sequence[Series]
) -> None:
    values = [x for one in series for x, _ in one.points]
    wide = min(values) > 0 and max(values) >= 20 * min(values)
    step = min((b - a for a, b in pairwise(sorted(set(values)))), default=1.0)
    heights: list[float] = []
    for number, one in enumerate(series):
        colour = SERIES[number % len(SERIES)]
        shift = 0.0 if wide else 0.14 * step * (number - (len(series) - 1) / 2)
        if one.baseline is not None and one.baseline.name not in {
            s.baseline.name for s in series[:number] if s.baseline
        }:
            heights += _band(axes, one.baseline, BLUE if len(series) == 1 else colour, series)
        x = np.array([value for value, _ in one.points]) + shift
        found = [setting for _, setting in one.points]
        for at, setting in zip(x, found, strict=True):
            errors = errors_of(results, setting, analysis)
            heights += errors
            aside = at / 1.06 if wide else at - 0.1 * step
            axes.plot([aside] * len(errors), errors, "o", color=colour, alpha=0.4, ms=3, mew=0)
        heights += _means(axes, x, found, colour, one.name or "mean")
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
    _teacher(axes, results, heights, vertical=False)
    _legend(axes)


def _band(axes: Any, baseline: SettingResult, colour: str, series: Sequence[Series]) -> list[float]:
    mean = 100 * baseline.test_error
    half = 100 * half_width(baseline.deviation, len(baseline.seeds))
    shared = len({s.baseline.name for s in series if s.baseline}) == 1
    label = baseline.name if shared or len(series) == 1 else None
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


def _rows(axes: Any, results: StudyResults, analysis: Analysis) -> None:
    settings, values = analysis.settings, list[float]()
    for row, setting in enumerate(settings):
        records = results.of(setting.name, setting.seeds)
        colour = ORANGE if _is_noisy(records[0]["recipe"]) else BLUE
        errors = errors_of(results, setting, analysis)
        mean, half = 100 * setting.test_error, 100 * half_width(setting.deviation, len(errors))
        values += [*errors, mean - half, mean + half]
        axes.plot(errors, [row + 0.22] * len(errors), "o", color=colour, alpha=0.4, ms=3, mew=0)
        axes.errorbar(mean, row, xerr=half, color=colour, marker="o", ms=4.5, elinewidth=1.3)
        if setting.paper is not None and is_papers_data(results):
            values.append(100 * setting.paper)
            axes.plot(100 * setting.paper, row, "D", mfc="none", color=GREY, ms=4.5)
    _name_rows(axes, settings)
    axes.set_xlabel("test error, %")
    _teacher(axes, results, values, vertical=True)


def _forest(axes: Any, settings: Sequence[SettingResult]) -> None:
    axes.axvline(0, color=GREY, lw=1)
    for row, setting in enumerate(settings):
        found = setting.comparison
        assert found is not None
        clear = setting.p_holm is not None and setting.p_holm < 0.05
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
    axes.set_yticks(range(len(settings)), [setting.name for setting in settings])
    for label, setting in zip(axes.get_yticklabels(), settings, strict=True):
        label.set_fontweight("bold" if setting.primary else "normal")
    axes.set_ylim(len(settings) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)


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
        weight = "bold" if setting.p_holm is not None and setting.p_holm < 0.05 else "normal"
        text = f"{100 * setting.test_error:.2f}"
        axes.text(*at, text, ha="center", va="center", color="#111111", fontsize=7, weight=weight)
    axes.set_xticks(np.arange(len(xs)) + 0.5, [f"{x:g}" for x in xs])
    axes.set_yticks(np.arange(len(ys)) + 0.5, [f"{y:g}" for y in ys])
    axes.set_xlabel(heat.x_key)
    axes.set_ylabel(heat.y_key)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _teacher(axes: Any, results: StudyResults, values: list[float], *, vertical: bool) -> None:
    """Draw the teachers' mean test error as a line, or say where it lies if that is far away."""
    low, high = min(values), max(values)
    room = 0.06 * ((high - low) or 1.0)
    line, span = (axes.axvline, axes.set_xlim) if vertical else (axes.axhline, axes.set_ylim)
    errors = [100 * row["test_error"] for row in results.teachers.values()]
    if errors:
        mean = float(np.mean(errors))
        far = mean < low - (high - low) or mean > high + (high - low)
        label = f"teacher{'s' * (len(errors) > 1)}"
        if far:
            where = "below" if mean < low else "above"
            axes.plot([], [], color=GREY, ls=":", label=f"{label}: {mean:.2f} %, {where}")
        else:
            low, high = min(low, mean), max(high, mean)
            line(mean, color=GREY, ls=":", lw=1.4, label=f"{label}: {mean:.2f} %")
    span(low - room, high + room)
    if vertical:
        _legend(axes)


def _legend(axes: Any) -> None:
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if found:
        axes.figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=2)


def _is_noisy(recipe: dict[str, Any]) -> bool:
    sigma = recipe["sigma"]
    drawn = max(sigma) if isinstance(sigma, list) else sigma
    return bool(drawn and (recipe["alpha"] or any(recipe["teacher_alphas"])))


def _baseline_text(analysis: Analysis) -> str:
    return ", ".join(sorted({setting.baseline for setting in analysis.settings}))


def _seeds_text(analysis: Analysis) -> str:
    counts = sorted({len(setting.seeds) for setting in analysis.settings})
    if counts == [1]:
        return "n = 1: no interval."
    return f"n = {counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''} seeds a setting."


def _paper_text(results: StudyResults, analysis: Analysis) -> str:
    if not any(setting.paper for setting in analysis.settings):
        return ""
    if is_papers_data(results):
        return " Hollow: the errors that the paper prints (one student each)."
    return " The paper's errors are of other data and not drawn."


__all__ = ["INK", "LINE", "errors_of", "forest_figure", "half_width", "main_figure"]
