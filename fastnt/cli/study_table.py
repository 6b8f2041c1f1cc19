"""What ``fastnt study`` and ``fastnt report`` print about a study: plan, verdict and table."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from fastnt.cli.tables import print_table
from fastnt.console import make_console
from fastnt.errors import UserError
from fastnt.wording import counted, duration

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
        _print_settings(console, analysis)
    for row in results.failed:
        line = f"seed {row['seed']}, {row['setting']} failed: {row['error']}"
        console.print(line, soft_wrap=True)
    for sentence in sentences:
        console.print(sentence)
    console.print(f"The page is {page}", soft_wrap=True)


def show_list(dataset: str | None, studies_dir: Path) -> None:
    """Print each study with its number of students and, if it can be estimated, its time."""
    from fastnt.experiments.named import PAPER_DATA, STUDIES
    from fastnt.experiments.plan import earlier_points, plan_study
    from fastnt.recipe_files import load_recipe

    rows, earlier = [], earlier_points(studies_dir)
    for name, make in STUDIES.items():
        recipe = load_recipe(dataset or PAPER_DATA.get(name, "cifar10"))
        try:
            study = make(recipe, {})
        except UserError:  # on these data the study needs --over
            rows.append([name, recipe.dataset_name, "", "", (make.__doc__ or "").split("\n")[0]])
            continue
        plan = plan_study(f"{name}-{recipe.dataset_name}", study, *earlier)
        time = "" if plan.seconds is None else duration(plan.seconds)
        rows.append([name, recipe.dataset_name, str(plan.points), time, study.title])
    headings = ("study", "data", "students", "time", "what it compares")
    print_table(make_console(), headings, rows, numbers=("students", "time"))


def show_plan(folder: Path, study: "Study") -> None:
    """Print what the study trains, and what earlier points tell of its length and its power."""
    from fastnt.experiments.plan import earlier_points, plan_study

    plan = plan_study(folder.name, study, *earlier_points(folder.parent))
    console = make_console()

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    trained = f", {plan.trained} of them trained" if plan.trained else ""
    say(f"{study.title}: {counted(plan.points, 'student')} in {folder}{trained}")
    for setting in study.settings:
        say(f"  {setting.name}")
    left = "left" if plan.trained else "in all"
    seeds, settings = counted(study.seeds, "seed"), counted(len(study.settings), "setting")
    if study.tune:
        seeds += f" and {counted(study.tune, 'pilot seed')}"
    say(f"{seeds} of {settings}, {counted(plan.epochs, 'epoch')} {left}")
    if plan.seconds is not None and plan.epochs:
        say(f"about {duration(plan.seconds)} of one process, at the speed of earlier students here")
    if plan.smallest is None:
        say("smallest difference that it could see: not known before 3 seeds of the same data")
    else:
        say(f"differences from {100 * plan.smallest:.2f} points on would be seen (80 % power)")


def _print_settings(console: Console, analysis: "Analysis") -> None:
    """Print a row a setting, that of the verdict bold."""
    numbers = ("held-out\n%", "test\n%", "n", "difference\npoints", "95 %\ninterval")
    rows = []
    for s in analysis.settings:
        cells = [f"{100 * s.held_out_error:.2f}", f"{100 * s.test_error:.2f}", str(len(s.seeds))]
        cells += ["", "", ""]
        if s.comparison is not None:
            interval = s.comparison.interval
            cells[3:] = [
                f"{100 * s.comparison.difference:+.2f}",
                "" if interval is None else interval.in_points(to=" "),
                s.verdict or "",
            ]
        rows.append([Text(cell, "bold" if s.primary else "") for cell in (s.name, *cells)])
    print_table(console, ("setting", *numbers, "verdict"), rows, numbers=numbers)


def _as_json(failed: Any, analysis: "Analysis", sentences: list[str], page: Path) -> dict[str, Any]:
    return {
        "verdict": sentences,
        "settings": [dataclasses.asdict(s) | {"verdict": s.verdict} for s in analysis.settings],
        "failed": [{k: row[k] for k in ("setting", "seed", "error")} for row in failed],
        "page": str(page),
    }
