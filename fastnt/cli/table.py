"""The tables of a run: its networks, and how the time of a step is spent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastnt.cli.tables import print_table
from fastnt.console import make_console
from fastnt.data.sources import full_name
from fastnt.monitoring.display import name_phase
from fastnt.monitoring.profile import Section
from fastnt.monitoring.progress import PHASES
from fastnt.report.sentences import difference_text, error_interval, percents
from fastnt.wording import duration, short_count


def print_summary(summary: dict[str, Any], timings: dict[str, float], folder: Path) -> None:
    """Print the networks, what their difference means, how the time was spent, and the run's folder."""
    console = make_console()
    numbers = ("test error", "95 %", "parameters", "multiplies", "images/s", "time")
    rows = []
    several = {f"teacher-{i}": row for i, row in enumerate(summary.get("teachers", []), start=1)}
    for phase, row in (several | {p: summary[p] for p in PHASES if p in summary}).items():
        speed = timings.get(f"{phase}_images_per_second")
        seconds = timings.get(f"{phase}_seconds")
        row_cells = [
            "all teachers" if "combine" in row else name_phase(phase),
            f"{100 * row['test_error']:.2f} %",
            percents(error_interval(row), "-"),
            short_count(row["parameters"]),
            short_count(row["multiplies"]),
            f"{speed:,.0f}" if speed else "reused",
            "" if seconds is None else duration(seconds),
        ]
        rows.append(row_cells)
    name = full_name(summary["dataset"], official=summary["official"])
    title = f"{name}, seed {summary['seed']}"
    print_table(console, ("network", *numbers), rows, numbers=numbers, title=title)
    if (difference := difference_text(summary)) is not None:
        console.print(difference)
    others = ", ".join(
        f"{name} {duration(timings[f'{name}_seconds'])}"
        for name in ("prepare", "logits", "evaluation")
        if f"{name}_seconds" in timings
    )
    console.print(f"Besides: {others}")
    students = "clean" in summary or "noisy" in summary
    its = f", its picture {folder / 'curves.png'}" if students else ""
    console.print(f"The run is in {folder}{its}", soft_wrap=True)


def print_profile(sections: Sequence[Section], title: str) -> None:
    """Print the time of each part of a step, in milliseconds and percent, and their sum."""
    rows = [
        [section.name, f"{section.milliseconds:,.2f}", f"{100 * section.share:.1f} %"]
        for section in sections
    ]
    whole = sum(section.milliseconds for section in sections)
    rows.append(["whole step", f"{whole:,.2f}", "100.0 %"])
    headings, ends = ("part of the step", "ms", "share"), (len(sections) - 1,)
    print_table(make_console(), headings, rows, numbers=headings[1:], title=title, ends=ends)
