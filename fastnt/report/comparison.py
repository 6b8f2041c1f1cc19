"""Runs side by side: held-out error and loss of their students over the epochs, one line each."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastnt.errors import UserError
from fastnt.report.runs import STUDENTS, SavedRun
from fastnt.report.style import (
    COLOURS,
    RUN_COLOURS,
    RUN_MARKERS,
    dress,
    noise_text,
    save,
    scale,
)
from fastnt.training.progress import EpochRecord

_LINES: dict[str, Any] = {"clean": (0, (4, 2)), "noisy": "-"}  # where colours stand for runs
_MARKED = 16  # markers a line at most


def draw_runs(path: Path, runs: Sequence[SavedRun]) -> None:
    """Draw the students' held-out error and loss after each epoch to ``path`` (PNG).

    One run has a colour for each student and its teacher's error as a line; several runs have a
    colour and a marker each, their clean students dashed.

    Raises:
        UserError: no student has ended an epoch yet, or the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not any(run.has_curves for run in runs):
        raise UserError("no student has ended an epoch yet: there are no curves to draw")
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, wspace=0.04)
    figure = Figure(figsize=(11, 4.6 + 0.13 * len(runs)), dpi=160, layout=layout)
    left, right = figure.subplots(1, 2)
    errors = _draw(left, runs, lambda record: 100 * record.validation_error)
    losses = _draw(right, runs, lambda record: record.validation_loss)
    if len(runs) == 1:
        errors += _draw_teacher(left, runs[0])
    dress(left, "held-out error", "misclassified images, %")
    dress(right, "held-out loss", "L2 loss to the teacher's clean logits")
    scale(left, errors)
    scale(right, losses)
    figure.suptitle(_title(runs), x=0.015, ha="left", fontsize=13, fontweight="bold")
    handles = _legend(runs)
    columns = len(handles) if len(handles) <= 3 else 2
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    save(figure, path)


def _title(runs: Sequence[SavedRun]) -> str:
    datasets = ", ".join(dict.fromkeys(str(run.recipe.get("dataset", "?")) for run in runs))
    if len(runs) == 1:
        return f"{datasets}: the two students of {runs[0].name}"
    return f"{datasets}: the students of {len(runs)} runs"


def _draw(
    axes: Any, runs: Sequence[SavedRun], value: Callable[[EpochRecord], float]
) -> list[float]:
    """Draw one line a student a run; return the finite values drawn."""
    drawn = []
    for number, run in enumerate(runs):
        for phase in STUDENTS:
            records = run.of_phase(phase)
            values = [value(record) for record in records]
            epochs = [record.epoch for record in records]
            every = math.ceil(len(epochs) / _MARKED) or 1
            axes.plot(epochs, values, markevery=every, **_look(len(runs), number, phase))
            drawn += [v for v in values if math.isfinite(v)]
    return drawn


def _draw_teacher(axes: Any, run: SavedRun) -> list[float]:
    """Draw the teacher's last held-out error, where this run trained it; return it."""
    errors = [100 * record.validation_error for record in run.of_phase("teacher")[-1:]]
    for error in errors:
        axes.axhline(error, color=COLOURS["teacher"], linestyle=":", linewidth=1.8)
    return errors


def _look(runs: int, number: int, phase: str) -> dict[str, Any]:
    """How a student's line looks, as matplotlib's arguments."""
    if runs == 1:
        colour, marker, line = COLOURS[phase], {"clean": "s", "noisy": "o"}[phase], "-"
    else:
        colour = RUN_COLOURS[number % len(RUN_COLOURS)]
        marker, line = RUN_MARKERS[number % len(RUN_MARKERS)], _LINES[phase]
    hollow = {"markerfacecolor": "white"} if phase == "clean" and runs > 1 else {}
    return {
        "color": colour,
        "marker": marker,
        "linestyle": line,
        "linewidth": 1.8,
        "markersize": 4.5,
        **hollow,
    }


def _legend(runs: Sequence[SavedRun]) -> list[Any]:
    from matplotlib.lines import Line2D

    def line(label: str, **look: Any) -> Any:
        return Line2D([], [], label=label, **look)

    if len(runs) == 1:
        (run,) = runs
        handles = [
            line(_with_test(run, phase, name), **_look(1, 0, phase))
            for phase, name in (
                ("clean", "clean teacher"),
                ("noisy", f"noisy teacher ({_noise(run)})"),
            )
        ]
        if run.of_phase("teacher"):
            look = {"color": COLOURS["teacher"], "linestyle": ":", "linewidth": 1.8}
            handles.append(line(_with_test(run, "teacher", "the teacher itself"), **look))
        return handles
    handles = [
        line(f"{run.name} ({_noise(run)}{_state(run)})", **_look(len(runs), number, "noisy"))
        for number, run in enumerate(runs)
    ]
    for phase in ("noisy", "clean"):
        look = {"color": COLOURS["teacher"], "linestyle": _LINES[phase], "linewidth": 1.8}
        handles.append(line(f"{phase} teacher", **look))
    return handles


def _noise(run: SavedRun) -> str:
    alpha = run.recipe.get("teacher_alphas") or run.recipe.get("alpha", math.nan)
    return noise_text(alpha, run.recipe.get("sigma", math.nan))


def _with_test(run: SavedRun, phase: str, name: str) -> str:
    if run.summary is None:
        return f"{name}, unfinished"
    return (
        f"{name}: test error {100 * run.summary.get(phase, {}).get('test_error', math.nan):.2f} %"
    )


def _state(run: SavedRun) -> str:
    return "" if run.summary is not None else ", unfinished"
