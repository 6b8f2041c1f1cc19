"""The picture of a run: held-out error of its students over the epochs, and the teacher's error."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastnt.monitoring.progress import STUDENTS, EpochRecord
from fastnt.report.sentences import difference_text, error_text
from fastnt.report.style import COLOURS, add_note, noise_text, plain_text, save, scale, style_axes


@plain_text()
def plot_curves(path: Path, records: Sequence[EpochRecord], summary: dict[str, Any]) -> None:
    """Plot the students' held-out error after each epoch to ``path`` (PNG); nothing without students.

    Args:
        path: the picture.
        records: the epochs; those of other phases than clean and noisy are ignored.
        summary: the run's summary. The legend shows its errors, and a dashed line the teacher's held-out
            error.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    students = [phase for phase in STUDENTS if phase in summary]
    if not students:
        return
    figure = Figure(figsize=(7.2, 4.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    noise, several = "", "s" if "teachers" in summary else ""
    if "noisy" in summary:
        noise = noise_text(summary["noisy"]["alpha"], summary["noisy"]["sigma"])
    teacher_error = summary["teacher"]["held_out_error"]
    names = {
        "clean": f"student, clean teacher{several}",
        "noisy": f"student, noisy teacher{several} ({noise})",
    }
    for phase in students:
        epochs = [r for r in records if r.phase == phase]
        axes.plot(
            [r.epoch for r in epochs],
            [100 * r.validation_error for r in epochs],
            color=COLOURS[phase],
            linewidth=2,
            marker="o",
            markersize=3.5,
            label=f"{names[phase]}: {_percents(summary[phase])}",
        )
    axes.axhline(
        100 * teacher_error,
        color=COLOURS["teacher"],
        linestyle="--",
        linewidth=1.5,
        label=f"teacher{several}: {_percents(summary['teacher'])}",
    )
    count = len(summary.get("teachers", [])) or "one"
    number = "two students" if len(students) == 2 else "a student"
    title = f"{summary['dataset']}: {number} of {count} teacher{several}"
    style_axes(axes, title, "held-out error, %")
    scale(axes, [teacher_error, *(r.validation_error for r in records if r.phase in names)])
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    add_note(figure, difference_text(summary))
    save(figure, path)


def _percents(found: dict[str, Any]) -> str:
    return f"held-out {100 * found['held_out_error']:.2f} %, test {error_text(found)}"
