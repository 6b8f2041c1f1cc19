"""What ``fastnt study`` and ``fastnt report`` show of a study: plan, verdict, table, page."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.table import Table

from fastnt.console import make_console
from fastnt.errors import UserError

if TYPE_CHECKING:
    from fastnt.experiments.analysis import Analysis
    from fastnt.experiments.study import Study


def show_study(folder: Path, *, json_: bool = False, quiet: bool = False) -> None:
    """Write the study's page and print verdict and table, or all of it as JSON.

    Raises:
        UserError: the folder holds no study, or no student of it is trained yet.
    """
    from fastnt.experiments.analysis import analyse
    from fastnt.experiments.results import load_study
    from fastnt.experiments.verdict import verdicts
    from fastnt.report.study_page import write_page

    results = load_study(folder)
    analysis = analyse(results)
    page = write_page(results, analysis)
    sentences = verdicts(results, analysis)
    if json_:
        typer.echo(json.dumps(_as_json(results.failed, analysis, sentences, page), indent=2))
        return
    console = make_console()
    if not quiet:
        console.print(_table(analysis))
    for row in results.failed:
        line = f"seed {row['seed']}, {row['setting']} failed: {row['error']}"
        console.print(line, soft_wrap=True)
    for sentence in sentences:
        console.print(sentence, soft_wrap=True)
    console.print(f"The page is {page}", soft_wrap=True)


def show_list(dataset: str | None, studies_dir: Path) -> None:
    """Print each study, its students at 5 seeds and, where this machine's speed is known, the time."""
    from fastnt.experiments.named import PAPER_DATA, STUDIES
    from fastnt.experiments.plan import plan_study
    from fastnt.recipe_files import load_recipe

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("study", "data"):
        table.add_column(heading, no_wrap=True)
    for heading in ("students", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what it compares")
    for name, make in STUDIES.items():
        recipe = load_recipe(dataset or PAPER_DATA.get(name, "cifar10"))
        try:
            study = make(recipe, {})
        except UserError:  # on these data it needs --over
            table.add_row(name, recipe.dataset_name, "", "", (make.__doc__ or "").split("\n")[0])
            continue
        plan = plan_study(studies_dir / f"{name}-{recipe.dataset_name}", study)
        hours = "" if plan.hours is None else _time(plan.hours)
        table.add_row(name, recipe.dataset_name, str(plan.points), hours, study.title)
    make_console().print(table)


def show_plan(folder: Path, study: "Study") -> None:
    """Print what the study trains, and what earlier points tell of its length and its power."""
    from fastnt.experiments.plan import plan_study

    plan = plan_study(folder, study)
    console = make_console()

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    trained = f", {plan.trained} of them trained" if plan.trained else ""
    say(f"{study.title}: {plan.points} students in {folder}{trained}")
    for setting in study.settings:
        say(f"  {setting.name}")
    left = "left" if plan.trained else "in all"
    say(f"{study.seeds} seeds of {len(study.settings)} settings, {plan.epochs:,} epochs {left}")
    if plan.hours is not None:
        say(f"about {_time(plan.hours)} of one process, at the speed of earlier students here")
    if plan.smallest is None:
        say("smallest difference that it could see: not known before 3 seeds of the same data")
    else:
        say(f"differences from {100 * plan.smallest:.2f} points on would be seen (80 % power)")


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"


def _table(analysis: "Analysis") -> Table:
    """A row a setting; it fits 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("setting", overflow="fold")
    for heading in ("held-out\n%", "test\n%", "n", "difference\npoints", "95 %\ninterval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for s in analysis.settings:
        cells = [f"{100 * s.held_out_error:.2f}", f"{100 * s.test_error:.2f}", str(len(s.seeds))]
        if s.comparison is not None:
            cells += [f"{100 * s.comparison.difference:+.2f}", _interval(s), s.comparison.verdict]
        style = "bold" if s.primary else ""
        table.add_row(s.name, *cells, style=style)
    return table


def _interval(setting: Any) -> str:
    comparison = setting.comparison
    interval = comparison.crossed or (comparison.paired and comparison.paired.interval)
    return "" if not interval else interval.in_points(to=" ")


def _as_json(failed: Any, analysis: "Analysis", sentences: list[str], page: Path) -> dict[str, Any]:
    return {
        "verdict": sentences,
        "settings": [dataclasses.asdict(setting) for setting in analysis.settings],
        "failed": [{k: row[k] for k in ("setting", "seed", "error")} for row in failed],
        "page": str(page),
    }
