"""Parts that several figures share: intervals of means, the teacher's line, legends, seed counts."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastnt.experiments.analysis import Analysis, SettingResult
from fastnt.experiments.results import StudyResults
from fastnt.report.svg import BLUE, GREY, ORANGE
from fastnt.statistics import t_quantile


def half_width(deviation: float | None, n: int) -> float:
    """Return half the width of the 95 % t interval of a mean over n seeds; 0 for one seed."""
    if deviation is None:
        return 0.0
    return t_quantile(n - 1, 0.95) * deviation / math.sqrt(n)


def errors_of(results: StudyResults, setting: SettingResult, analysis: Analysis) -> list[float]:
    """Return the test errors of a setting's students, percent."""
    name = f"{analysis.when}_test_error"
    return [100 * record[name] for record in results.of(setting.name, setting.seeds)]


def colour_of(results: StudyResults, setting: SettingResult) -> str:
    """Return the colour of a setting: blue without noise, orange with noise."""
    return ORANGE if results.recipe(setting.name).draws_noise else BLUE


def plot_teacher(
    axes: Any, results: StudyResults, values: list[float], ends: list[float], *, vertical: bool
) -> None:
    """Plot the teachers' mean test error as a line, or write where it lies if that is far away.

    This also sets the limits of the axis: they include all ``values``, and those ``ends`` of intervals
    that lie no further beyond the values than the values reach. The interval of two seeds may be wider
    than any error.
    """
    low, high = min(values), max(values)
    reach = (high - low) or max(ends) - min(ends)
    low, high = min(low, max(min(ends), low - reach, 0.0)), max(high, min(max(ends), high + reach))
    room = 0.06 * ((high - low) or 1.0)
    line, span = (axes.axvline, axes.set_xlim) if vertical else (axes.axhline, axes.set_ylim)
    errors = [100 * row["test_error"] for row in results.teachers.values()]
    if errors:
        mean = float(np.mean(errors))
        far = mean < low - (high - low) / 2 or mean > high + (high - low) / 2
        label = f"teacher{'s' * (len(errors) > 1)}"
        if far:
            where = "below" if mean < low else "above"
            axes.plot([], [], color=GREY, ls=":", label=f"{label}: {mean:.2f} %, {where}")
        else:
            low, high = min(low, mean), max(high, mean)
            line(mean, color=GREY, ls=":", lw=1.4, label=f"{label}: {mean:.2f} %")
    span(low - room, high + room)
    if vertical:
        plot_legend(axes)


def plot_legend(axes: Any) -> None:
    """Put a legend with each name once above the axes."""
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if found:
        axes.figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=2)


def seeds_text(settings: Iterable[SettingResult]) -> str:
    """Return the number of seeds of at least one setting as text."""
    counts = sorted({len(setting.seeds) for setting in settings})
    if counts == [1]:
        return "n = 1: no interval."
    return f"n = {counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''} seeds a setting."
