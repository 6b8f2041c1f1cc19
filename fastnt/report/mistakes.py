"""Mistakes of a study's students: confusion matrices, and images on which two settings disagree."""

import base64
import io
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnt.data.prepare import find_prepared, open_dataset
from fastnt.errors import UserError
from fastnt.experiments.analysis import Analysis, SettingResult
from fastnt.experiments.results import StudyResults
from fastnt.report.svg import Picture, render
from fastnt.report.table_files import Column, Table
from fastnt.wording import counted

MOST_IMAGES = 24
_MOST_CLASSES = 20  # a confusion matrix of more classes shows no numbers


def confusion(results: StudyResults, analysis: Analysis, setting: SettingResult) -> Any:
    """Return the confusion matrix: images of class (row) predicted as class (column), mean over seeds."""
    labels, classes = results.data["test_labels"], len(results.data["classes"])
    counts = np.zeros((classes, classes))
    for record in results.of(setting.name, setting.seeds):
        np.add.at(counts, (labels, record[f"{analysis.when}_predictions"]), 1)
    return counts / len(setting.seeds)


def confusion_figures(
    results: StudyResults, analysis: Analysis, settings: list[SettingResult]
) -> list[Picture]:
    """Plot a confusion matrix for each of the settings; only mistakes are coloured."""
    if len(results.data["classes"]) > _MOST_CLASSES:
        return []
    matrices = [confusion(results, analysis, setting) for setting in settings]
    most = max((float((m - np.diag(np.diag(m))).max()) for m in matrices), default=0.0) or 1.0
    return [
        render(
            f"confusion-{number}",
            f"Confusion matrix of {setting.name}",
            partial(_matrix, matrix=matrix, classes=results.data["classes"], most=most),
            size=(3.6, 3.5),
            caption=f"{setting.name}: images of the class at the left taken for the class below, mean "
            f"over {counted(len(setting.seeds), 'seed')}.",
        )
        for number, (setting, matrix) in enumerate(zip(settings, matrices, strict=True), 1)
    ]


def _matrix(axes: Any, matrix: npt.NDArray[Any], classes: list[str], most: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    wrong = matrix * (1 - np.eye(len(matrix)))
    shades = LinearSegmentedColormap.from_list("wrong", ["#f2f2ee", "#e07b39"])
    axes.pcolormesh(wrong, cmap=shades, vmin=0, vmax=most, edgecolor="none")
    for row, column in np.ndindex(*matrix.shape):
        value = float(matrix[row, column])
        if value:
            text = f"{value:.0f}" if value >= 99.5 or value == round(value) else f"{value:.1f}"
            colour = "#6b6b66" if row == column else "#111111"
            size = 6 if len(classes) <= 10 else 4
            at = column + 0.5, row + 0.5
            axes.text(*at, text, ha="center", va="center", color=colour, fontsize=size)
    ticks = np.arange(len(classes)) + 0.5
    long = max(map(len, classes)) > 2
    axes.set_xticks(ticks, classes, rotation=90 if long else 0)
    axes.set_yticks(ticks, classes)
    axes.invert_yaxis()
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def disagreements(
    results: StudyResults, analysis: Analysis, baseline: SettingResult, best: SettingResult
) -> Table:
    """Return the images on which the two settings differ most in how many seeds get them wrong."""
    seeds = results.seeds(baseline.name, best.name)
    labels, classes = results.data["test_labels"], results.data["classes"]
    wrong = [
        results.wrong(name, seeds, analysis.when).sum(0) for name in (baseline.name, best.name)
    ]
    more = wrong[1].astype(int) - wrong[0].astype(int)
    order = np.argsort(-np.abs(more), kind="stable")
    gained = [i for i in order if more[i] < 0][: MOST_IMAGES // 2]
    lost = [i for i in order if more[i] > 0][: MOST_IMAGES // 2]
    rows = [
        {
            "image": int(i),
            "class": classes[labels[i]],
            "wrong_baseline": int(wrong[0][i]),
            "wrong_best": int(wrong[1][i]),
            "said_baseline": _said(results, analysis, baseline.name, seeds, i),
            "said_best": _said(results, analysis, best.name, seeds, i),
        }
        for i in (*gained, *lost)
    ]
    columns = (
        Column("image", "test image", "d"),
        Column("class", "class", text=True),
        Column("wrong_baseline", f"{baseline.name}: wrong, of {len(seeds)}", "d"),
        Column("wrong_best", f"{best.name}: wrong, of {len(seeds)}", "d"),
        Column("said_baseline", f"{baseline.name} says", text=True),
        Column("said_best", f"{best.name} says", text=True),
    )
    title = (
        f"{int((more < 0).sum()):,} images that {best.name} gets wrong with fewer seeds than "
        f"{baseline.name}, {int((more > 0).sum()):,} with more; the clearest of each"
    )
    return Table("mistakes", title, columns, tuple(rows))


def _said(results: StudyResults, analysis: Analysis, name: str, seeds: list[int], i: int) -> str:
    predictions = [int(r[f"{analysis.when}_predictions"][i]) for r in results.of(name, seeds)]
    counts = {
        c: predictions.count(c)
        for c in sorted(set(predictions), key=lambda c: (-predictions.count(c), c))
    }
    classes = results.data["classes"]
    return ", ".join(
        f"{classes[c]} ({n})" if len(seeds) > 1 else classes[c] for c, n in counts.items()
    )


def images_of(results: StudyResults, table: Table) -> dict[int, str] | None:
    """Return each image of the table as a data URL (PNG); None if the data are not on this machine."""
    source = results.data["source"]
    found = find_prepared(source)
    if found is None:
        return None
    try:
        images, _ = open_dataset(found.folder).test.arrays()
    except UserError:
        return None
    return {row["image"]: _address(images[row["image"]]) for row in table.rows}


def _address(image: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
