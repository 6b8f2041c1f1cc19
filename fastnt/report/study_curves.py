"""Small figures of a study: the training curves of each setting, and error against multiplies."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnt.experiments.analysis import Analysis, SettingResult
from fastnt.experiments.results import StudyResults
from fastnt.report.study_marks import colour_of, half_width, seeds_text
from fastnt.report.study_tables import teacher_network
from fastnt.report.svg import GREY, INK, Picture, render
from fastnt.wording import short_count

_PANEL = (2.3, 2.5)  # inches


def curve_figures(results: StudyResults, analysis: Analysis) -> list[Picture]:
    """Plot each setting's held-out error and losses over the epochs: mean and range over seeds."""
    limits = _limits([record["epochs"] for record in results.records])
    return [
        render(
            f"curves-{number}",
            setting.name,
            partial(_curves, results=results, analysis=analysis, setting=setting, limits=limits),
            size=_PANEL,
        )
        for number, setting in enumerate(analysis.settings, 1)
    ]


def teacher_figures(results: StudyResults) -> list[Picture]:
    """Plot the training of each teacher that was trained for this study."""
    curves = {name: row["epochs"] for name, row in results.teachers.items() if row["epochs"]}
    limits = _limits(list(curves.values()))
    return [
        render(
            f"teacher-{number}",
            f"{name}: held-out error, %",
            partial(_one, epochs=[columns], colour=GREY, limits=limits),
            size=(2.6, 1.9),
            caption=f"{name}: held-out error after each epoch of its training, %",
        )
        for number, (name, columns) in enumerate(curves.items(), 1)
    ]


def _curves(
    axes: Any,
    results: StudyResults,
    analysis: Analysis,
    setting: SettingResult,
    limits: tuple[float, float],
) -> None:
    baseline = analysis.setting(setting.baseline)
    if baseline is not None and baseline is not setting:
        epochs = [record["epochs"] for record in results.of(baseline.name, baseline.seeds)]
        x, values = _stack(epochs, "validation_error")
        axes.plot(x, 100 * values.mean(0), color=GREY, lw=1, ls=(0, (4, 2)))
    epochs = [record["epochs"] for record in results.of(setting.name, setting.seeds)]
    _one(axes, epochs, colour_of(results, setting), limits)
    axes.set_title(setting.name, loc="left", fontsize=7.5)


def _one(
    axes: Any,
    epochs: Sequence[Mapping[str, npt.NDArray[Any]]],
    colour: str,
    limits: tuple[float, float],
) -> None:
    """Plot a panel: the mean as a line, the range from the lowest to the highest seed as a band."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    x, values = _stack(epochs, "validation_error")
    values = 100 * values
    axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
    few = {"marker": "o", "ms": 3} if len(x) < 4 else {}
    axes.plot(x, values.mean(0), color=colour, lw=1.3, **few)
    low, high = limits
    if low > 0 and high >= 4 * low:
        axes.set_yscale("log")
        ticks = [t for e in range(-3, 3) for t in (10.0**e, 2 * 10.0**e, 5 * 10.0**e)]
        axes.set_yticks([t for t in ticks if low / 1.1 <= t <= high * 1.1])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(low / 1.1, high * 1.1)
    else:
        room = 0.05 * (high - low) or 1.0
        axes.set_ylim(max(0.0, low - room), high + room)
    if len(x) > 1:
        axes.set_xlim(1 - 0.02 * len(x), len(x) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.grid(axis="y")
    axes.set_xlabel("epoch", fontsize=7.5)
    axes.tick_params(labelsize=7)


def _stack(
    epochs: Sequence[Mapping[str, npt.NDArray[Any]]], column: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the epochs from 1, and the column (seeds, epochs)."""
    values = np.array([one[column] for one in epochs], dtype=float)
    return np.arange(1, values.shape[1] + 1), values


def _limits(epochs: Sequence[Mapping[str, npt.NDArray[Any]]]) -> tuple[float, float]:
    """Return the lowest and highest held-out error of all panels, percent: they share one scale."""
    values = [100 * one["validation_error"] for one in epochs if len(one)]
    if not values:
        return 0.0, 100.0
    return float(min(v.min() for v in values)), float(max(v.max() for v in values))


def size_figure(results: StudyResults, analysis: Analysis) -> Picture | None:
    """Plot error against multiplies: teachers, and each student's baseline and best setting.

    None if the networks were not measured yet, which a study does at its end.
    """
    students = _students(results, analysis)
    teachers = [
        (results.networks[network]["multiplies"], 100 * row["test_error"])
        for name, row in results.teachers.items()
        if (network := teacher_network(results, name)) in results.networks
        and results.networks[network]["multiplies"]
    ]
    if not students or not teachers:
        return None

    def paint(axes: Any) -> None:
        axes.plot(*zip(*teachers, strict=True), "s", color=GREY, ms=5.5, label="teacher")
        looks = ("baseline", "o", 0.94), ("lowest held-out error", "D", 1.06)
        for number, (label, marker, aside) in enumerate(looks):
            for multiplies, *pair in students:
                found = pair[number]
                axes.errorbar(
                    multiplies * aside,
                    100 * found.test_error,
                    100 * half_width(found.deviation, len(found.seeds)),
                    color=colour_of(results, found),
                    marker=marker,
                    ms=5,
                    ls="none",
                    elinewidth=1.2,
                )
            axes.plot([], [], marker, color=INK, mfc="none", ms=5, label=label)
        axes.set_xscale("log")
        axes.margins(x=0.15, y=0.12)
        axes.minorticks_off()
        sizes = _apart({multiplies for multiplies, *_ in [*teachers, *students]})
        axes.set_xticks(sizes, [short_count(size) for size in sizes])
        axes.grid(axis="y")
        axes.set_xlabel("multiplies of a forward pass")
        axes.set_ylabel("test error, %")
        axes.figure.legend(loc="outside upper left", ncols=3)

    seeds = seeds_text(setting for _, *pair in students for setting in pair)
    names = "; ".join(f"{base.name} and {best.name}" for _, base, best in students)
    return render(
        "size",
        "Test error against multiplies",
        paint,
        size=(4.8, 2.8),
        caption="Of each student network its baseline and its setting of lowest mean held-out error "
        f"({names}), blue without noise, orange with noise: means with 95 % t intervals, {seeds}",
    )


def _apart(values: Iterable[int]) -> list[int]:
    """Return those values, from the smallest, that are a quarter larger than the one before."""
    kept: list[int] = []
    for value in sorted(values):
        if not kept or value >= 1.25 * kept[-1]:
            kept.append(value)
    return kept


def _students(
    results: StudyResults, analysis: Analysis
) -> list[tuple[int, SettingResult, SettingResult]]:
    """Return multiplies, baseline and best setting of each student network that was measured."""
    found: dict[str, list[SettingResult]] = {}
    for setting in analysis.settings:
        recipe = results.of(setting.name, setting.seeds)[0]["recipe"]
        found.setdefault(recipe["student_network"], []).append(setting)
    rows = []
    for network, settings in found.items():
        compared = [setting for setting in settings if setting.comparison is not None]
        if not results.networks.get(network, {}).get("multiplies") or not compared:
            continue
        best = min(compared, key=lambda setting: setting.held_out_error)
        baseline = analysis.setting(best.baseline)
        if baseline is not None:
            rows.append((results.networks[network]["multiplies"], baseline, best))
    return sorted(rows, key=lambda row: row[0])
