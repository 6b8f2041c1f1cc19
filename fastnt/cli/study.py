"""``fastnt study``: many students of one teacher, and what their differences mean."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fastnt.cli import options
from fastnt.cli.asked_study import choose_study, typed_words
from fastnt.cli.options import WHAT, WHERE, teacher_option
from fastnt.cli.study_table import show_list, show_plan, show_study
from fastnt.errors import UserError
from fastnt.output import results_alone


def study(
    what: Annotated[
        str | None,
        typer.Argument(
            help="A study of the paper (--list), a .toml file, or the folder of a study that was begun.",
            metavar="NAME|FILE.toml|FOLDER",
            show_default="table3, 3 seeds",
        ),
    ] = None,
    dataset: options.Dataset = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="So many students of each setting.",
            show_default="5; 3 without arguments",
            rich_help_panel=WHAT,
        ),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            help="Sweep a recipe key; given more than once, every combination.",
            metavar="KEY=VALUE,VALUE",
            rich_help_panel=WHAT,
        ),
    ] = None,
    vary_teacher: Annotated[
        bool,
        typer.Option(
            "--vary-teacher", help="Each seed has a teacher of its own.", rich_help_panel=WHAT
        ),
    ] = False,
    tune: Annotated[
        int,
        typer.Option(
            help="Pilot seeds: train every setting with so many more seeds, whose held-out error "
            "chooses the setting of the verdict; they count for nothing else.",
            rich_help_panel=WHAT,
        ),
    ] = 0,
    config: options.Config = None,
    teacher: Annotated[str | None, teacher_option()] = None,
    student: options.Student = None,
    epochs: options.Epochs = None,
    set_: options.Assignments = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the study's folder.",
            show_default="STUDY-DATASET",
            rich_help_panel=WHERE,
        ),
    ] = None,
    studies_dir: Annotated[
        Path, typer.Option(help="Folder that holds the studies.", rich_help_panel=WHERE)
    ] = Path("studies"),
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(
            help="Of matrix products and convolutions; fixed for a study.",
            show_default="float32",
            rich_help_panel=WHERE,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Of each training on a CPU; fixed for a study.",
            show_default="1",
            rich_help_panel=WHERE,
        ),
    ] = None,
    jobs: Annotated[
        str,
        typer.Option(
            help="Trainings at a time; auto: as many as the cores allow. No result depends on it.",
            metavar="N|auto",
            rich_help_panel=WHERE,
        ),
    ] = "auto",
    budget: Annotated[
        float | None,
        typer.Option(help="Stop after so many seconds, to go on later.", rich_help_panel=WHERE),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="ray trains on a Ray cluster.", rich_help_panel=WHERE),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="Of the Ray cluster.", show_default="one of this machine", rich_help_panel=WHERE
        ),
    ] = None,
    trust_code: options.TrustCode = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Show the named studies: the paper's and others.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be trained, and train nothing.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print only the verdict, as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the verdict.")] = False,
) -> None:
    """Train many students of one teacher, each setting with several seeds, and compare them.

    Without arguments it sweeps sigma on scikit-learn's digits. A study goes on where it stopped.
    """
    from fastnt.environment import choose_device, keep_freed_memory
    from fastnt.experiments.lab import StudySetup
    from fastnt.experiments.run import EngineOptions, run_study
    from fastnt.trust import Trust

    if list_:
        show_list(dataset, studies_dir)
        return
    asked: dict[str, Any] = {"config": config, "over": over, "teacher": teacher, "student": student}
    asked |= {"epochs": epochs, "set": set_, "dataset": dataset, "name": name, "tune": tune or None}
    asked |= {"vary-teacher": vary_teacher or None}
    asked |= {"precision": precision, "threads": threads}
    options.refuse_json_of_a_plan(dry_run=dry_run, json=json_)
    folder, chosen = choose_study(what, asked, studies_dir, seeds)
    if dry_run:
        show_plan(folder, chosen)
        return
    setup = StudySetup(
        chosen,
        folder,
        device=str(choose_device(device)),
        data_dir=data_dir,
        quiet=quiet or json_,
        trust=Trust.of(trust_code, typed_words(asked)),
    )
    keep_freed_memory()
    if budget is not None and not 0 < budget < math.inf:
        raise UserError(f"--budget is {budget:g}; it must be a number of seconds above 0")
    engine_options = EngineOptions(
        jobs=_jobs(jobs), engine=engine, address=address, budget=budget, quiet=quiet or json_
    )
    with results_alone():
        outcome = run_study(setup, engine_options)
    if not outcome.whole:
        typer.echo(f"The budget is spent; go on with fastnt study {folder}", err=True)
    if outcome.done:
        show_study(folder, json_=json_, quiet=quiet)


def _jobs(text: str) -> int:
    if text == "auto":
        return 0
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise UserError(f"--jobs is {text!r}; it must be auto or at least 1")
    return int(text)
