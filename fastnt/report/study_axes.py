"""Choose the main figure of a study: error along a swept key, a heat map of two keys, or rows."""

import re
from dataclasses import dataclass
from typing import Any

from fastnt.experiments.analysis import Analysis, SettingResult
from fastnt.experiments.results import StudyResults

_MOST_SERIES = 4  # more lines could not be told apart
_NUMBERED = re.compile(r"(.*?),? (?:of )?([0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?)")


@dataclass(frozen=True)
class Series:
    """Settings along one axis."""

    name: str
    points: tuple[tuple[float, SettingResult], ...]  # sorted by value
    baseline: SettingResult | None = None  # the baseline that all points share, if they do
    baselines: tuple[SettingResult, ...] = ()  # otherwise a baseline for each point


@dataclass(frozen=True)
class Heat:
    """Settings over two swept keys."""

    x_key: str
    y_key: str
    cells: dict[tuple[float, float], SettingResult]


def axis_of(results: StudyResults, analysis: Analysis) -> tuple[str, list[Series]] | Heat | None:
    """Return the name of the axis and its series, or the cells of a heat map.

    None if the settings have no order; the figure then has a row for each setting.
    """
    study = results.study
    baselines = {study.baseline_of(setting.name) for setting in study.settings}
    compared = [s for s in analysis.settings if s.comparison and s.name not in baselines]
    values = {
        s.name: [getattr(results.recipe(s.name), key) for key in study.swept] for s in compared
    }
    numeric = [
        number
        for number in range(len(study.swept))
        if values and all(_is_number(row[number]) for row in values.values())
    ]
    if len(study.swept) == 2 and len(numeric) == 2 and len({s.baseline for s in compared}) == 1:
        x, y = study.swept
        cells = {(values[s.name][0], values[s.name][1]): s for s in compared}
        if all(len({cell[axis] for cell in cells}) > 1 for axis in (0, 1)):
            return Heat(x, y, cells)
    if numeric and len(study.swept) <= 2:
        along = numeric[-1]
        families: dict[str, list[tuple[float, SettingResult]]] = {}
        for setting in compared:
            row = values[setting.name]
            rest = [f"{study.swept[i]} {row[i]}" for i in range(len(row)) if i != along]
            families.setdefault(", ".join(rest), []).append((row[along], setting))
        return _series(study.swept[along], families, analysis)
    return _named_series(compared, analysis)


def _named_series(
    compared: list[SettingResult], analysis: Analysis
) -> tuple[str, list[Series]] | None:
    """Return a series for each beginning of the names that end in a number, such as "drop 0.3"."""
    families: dict[str, list[tuple[float, SettingResult]]] = {}
    for setting in compared:
        found = _NUMBERED.fullmatch(setting.name)
        if found is None:
            return None
        families.setdefault(found[1], []).append((float(found[2]), setting))
    if len(families) == 1:
        return _series(next(iter(families)), {"": next(iter(families.values()))}, analysis)
    return _series("sigma" if "noise" in " ".join(families) else "", families, analysis)


def _series(
    axis: str, families: dict[str, list[tuple[float, SettingResult]]], analysis: Analysis
) -> tuple[str, list[Series]] | None:
    if not families or len(families) > _MOST_SERIES or max(map(len, families.values())) < 2:
        return None
    series = []
    for name, points in families.items():
        ordered = tuple(sorted(points, key=lambda pair: pair[0]))
        own = [s for _, p in ordered if (s := analysis.setting(p.baseline)) is not None]
        if len({setting.name for setting in own}) == 1:
            series.append(Series(name, ordered, baseline=own[0]))
        elif len(families) == 1 and len(own) == len(ordered):
            series.append(Series(name, ordered, baselines=tuple(own)))
        else:
            return None
    return axis, series


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
