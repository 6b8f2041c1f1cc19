"""Compare runs in one picture: held-out error and loss of their students over the epochs."""

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastnt.errors import UserError
from fastnt.monitoring.progress import STUDENTS, EpochRecord
from fastnt.report.differences import NOISE, differences, differences_text, noise_label
from fastnt.report.runs import SavedRun
from fastnt.report.sentences import difference_text, error_text
from fastnt.report.style import COLOURS, plain_text, run_style, save, scale, style_axes

# The students' line styles where colours tell runs apart.
_LINES: dict[str, Any] = {"clean": (0, (4, 2)), "noisy": "-"}
_MARKED = 16  # a line has at most so many markers
_LETTERS = 160  # a line of the legend has room for so many


@plain_text()
def plot_runs(path: Path, runs: Sequence[SavedRun]) -> None:
    """Plot the students' held-out error and loss after each epoch to ``path`` (PNG).

    For one run, each student has a colour, and a line shows the teacher's error. For several runs, each
    run has a colour and a marker, clean students are dashed, and each data set has a row of panels.

    Raises:
        UserError: no student has ended an epoch yet, or the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    datasets = list(dict.fromkeys(run.dataset for run in runs if run.has_curves))
    if not datasets:
        raise UserError("no student has ended an epoch yet: there are no curves to draw")
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, wspace=0.04)
    handles = _legend(runs, several_datasets=len(datasets) > 1)
    columns = _columns(handles)
    lines = sum(handle.get_label().count("\n") + 1 for handle in handles)
    height = 0.9 + 3.7 * len(datasets) + 0.22 * math.ceil(lines / columns)
    figure = Figure(figsize=(11, height), dpi=160, layout=layout)
    panels = figure.subplots(len(datasets), 2, squeeze=False)
    for dataset, (left, right) in zip(datasets, panels, strict=True):
        errors = _plot(left, runs, dataset, lambda record: 100 * record.validation_error)
        losses = _plot(right, runs, dataset, lambda record: record.validation_loss)
        if len(runs) == 1:
            errors += _plot_teacher(left, runs[0])
        of = f"{dataset}: " if len(datasets) > 1 else ""
        style_axes(left, f"{of}held-out error", "misclassified images, %")
        style_axes(right, f"{of}held-out loss", "L2 loss to the teacher's clean logits")
        scale(left, errors)
        scale(right, losses)
    figure.suptitle(_title(runs, datasets), x=0.015, ha="left", fontsize=13, fontweight="bold")
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        title=_meaning(runs),
        title_fontsize=9,
    )
    save(figure, path)


def _title(runs: Sequence[SavedRun], datasets: Sequence[str]) -> str:
    if len(runs) == 1:
        return f"{runs[0].dataset}: the two students of {runs[0].name}"
    return f"{', '.join(datasets)}: the students of {len(runs)} runs"


def _meaning(runs: Sequence[SavedRun]) -> str | None:
    """Return what the difference between one finished run's students means; else None."""
    summary = runs[0].summary if len(runs) == 1 else None
    return None if summary is None else difference_text(summary)


def _plot(
    axes: Any, runs: Sequence[SavedRun], dataset: str, value: Callable[[EpochRecord], float]
) -> list[float]:
    """Plot a line for each student of each run on the data set; return the finite values plotted."""
    drawn = []
    for number, run in enumerate(runs):
        if run.dataset != dataset:
            continue
        for phase in STUDENTS:
            records = run.of_phase(phase)
            values = [value(record) for record in records]
            epochs = [record.epoch for record in records]
            every = math.ceil(len(epochs) / _MARKED) or 1
            axes.plot(epochs, values, markevery=every, **_line_style(len(runs), number, phase))
            drawn += [v for v in values if math.isfinite(v)]
    return drawn


def _plot_teacher(axes: Any, run: SavedRun) -> list[float]:
    """Plot the teacher's last held-out error if this run trained the teacher; return it in a list."""
    errors = [100 * record.validation_error for record in run.of_phase("teacher")[-1:]]
    for error in errors:
        axes.axhline(error, color=COLOURS["teacher"], linestyle=":", linewidth=1.8)
    return errors


def _line_style(runs: int, number: int, phase: str) -> dict[str, Any]:
    """Return matplotlib's arguments for the line of a student."""
    if runs == 1:
        colour, marker, line = COLOURS[phase], {"clean": "s", "noisy": "o"}[phase], "-"
    else:
        (colour, marker), line = run_style(number), _LINES[phase]
    hollow = {"markerfacecolor": "white"} if phase == "clean" and runs > 1 else {}
    return {
        "color": colour,
        "marker": marker,
        "linestyle": line,
        "linewidth": 1.8,
        "markersize": 4.5,
        **hollow,
    }


def _columns(handles: Sequence[Any]) -> int:
    """Wrap the labels of a legend, and return the number of columns that fit the picture."""
    longest = max(len(handle.get_label()) for handle in handles)
    columns = min(len(handles), max(1, _LETTERS // (longest + 8)), 3)
    for handle in handles:
        handle.set_label(textwrap.fill(handle.get_label(), _LETTERS // columns - 8))
    return columns


def _legend(runs: Sequence[SavedRun], *, several_datasets: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    def line(text: str, **look: Any) -> Any:
        hidden = text.startswith("_")  # matplotlib shows no such label
        return Line2D([], [], label=f" {text}" if hidden else text, **look)

    if len(runs) == 1:
        (run,) = runs
        handles = [
            line(_with_test(run, phase, name), **_line_style(1, 0, phase))
            for phase, name in (
                ("clean", "clean teacher"),
                ("noisy", f"noisy teacher ({noise_label(run)})"),
            )
            if phase in run.phases
        ]
        if run.of_phase("teacher"):
            look = {"color": COLOURS["teacher"], "linestyle": ":", "linewidth": 1.8}
            handles.append(line(_with_test(run, "teacher", "the teacher itself"), **look))
        return handles
    handles = []
    for number, (run, differs) in enumerate(zip(runs, differences(runs), strict=True)):
        parts = [run.dataset] if several_datasets else []
        others = {key: value for key, value in differs.items() if key not in NOISE}
        parts += [noise_label(run), *filter(None, [differences_text(others)])]
        parts += [] if run.summary is not None else ["unfinished"]
        handles.append(line(f"{run.name} ({', '.join(parts)})", **_line_style(2, number, "noisy")))
    for phase in ("noisy", "clean"):
        look = {"color": COLOURS["teacher"], "linestyle": _LINES[phase], "linewidth": 1.8}
        handles.append(line(f"{phase} teacher", **look))
    return handles


def _with_test(run: SavedRun, phase: str, name: str) -> str:
    if run.summary is None:
        return f"{name}, unfinished"
    found = run.summary.get(phase)
    return f"{name}: test error {error_text(found)}" if found else name
