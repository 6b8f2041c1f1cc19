"""``fastnt study``: many students of one teacher, and what their differences mean."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fastnt.cli.options import TrustCode, assignments
from fastnt.errors import UserError

if TYPE_CHECKING:
    from fastnt.experiments.study import Study

_WHAT, _WHERE = "What to train", "Where and how to compute"


def study(
    what: Annotated[
        str | None,
        typer.Argument(
            help="A study of the paper (--list), a .toml file, or the folder of a study that was begun.",
            metavar="NAME|FILE.toml|FOLDER",
            show_default="table3, 3 seeds",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="As for fastnt train.", show_default="digits", rich_help_panel=_WHAT),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="So many students of each setting.", show_default="5", rich_help_panel=_WHAT
        ),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            help="Sweep a recipe key; given more than once, every combination.",
            metavar="KEY=VALUE,VALUE",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    vary_teacher: Annotated[
        bool,
        typer.Option(
            "--vary-teacher", help="Each seed has a teacher of its own.", rich_help_panel=_WHAT
        ),
    ] = False,
    tune: Annotated[
        int,
        typer.Option(
            help="Choose the setting of the verdict by so many pilot seeds of their own.",
            rich_help_panel=_WHAT,
        ),
    ] = 0,
    config: Annotated[
        Path | None,
        typer.Option(help="A recipe (.toml) or the config.json of a run.", rich_help_panel=_WHAT),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Take this teacher, as it is.",
            metavar="FILE.safetensors|MODULE:FACTORY",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="Student network.", rich_help_panel=_WHAT)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of each student.", rich_help_panel=_WHAT)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any other value of the base recipe; may be given more than once.",
            metavar="KEY=VALUE",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the study's folder.",
            show_default="STUDY-DATASET",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    studies_dir: Annotated[
        Path, typer.Option(help="Folder that holds the studies.", rich_help_panel=_WHERE)
    ] = Path("studies"),
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the official files; nothing is downloaded.", rich_help_panel=_WHERE
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="auto takes the GPU where there is one.", rich_help_panel=_WHERE),
    ] = "auto",
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(
            help="Of matrix products and convolutions; fixed for a study.", rich_help_panel=_WHERE
        ),
    ] = "float32",
    threads: Annotated[
        int,
        typer.Option(help="Of each training on a CPU; fixed for a study.", rich_help_panel=_WHERE),
    ] = 1,
    jobs: Annotated[
        str,
        typer.Option(
            help="Trainings at a time; auto: as many as the cores allow. No result depends on it.",
            metavar="N|auto",
            rich_help_panel=_WHERE,
        ),
    ] = "auto",
    budget: Annotated[
        float | None,
        typer.Option(help="Stop after so many seconds, to go on later.", rich_help_panel=_WHERE),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="ray trains on a Ray cluster.", rich_help_panel=_WHERE),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="Of the Ray cluster.", show_default="one of this machine", rich_help_panel=_WHERE
        ),
    ] = None,
    trust_code: TrustCode = False,
    list_: Annotated[bool, typer.Option("--list", help="Show the studies of the paper.")] = False,
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
    from fastnt.experiments.lab import Place
    from fastnt.experiments.named import STUDIES
    from fastnt.experiments.run import Options, run_study
    from fastnt.trust import Trust

    if list_:
        for title, make in STUDIES.items():
            typer.echo(f"{title:14} {(make.__doc__ or '').splitlines()[0]}")
        return
    asked: dict[str, Any] = {"config": config, "over": over, "teacher": teacher, "student": student}
    asked |= {"epochs": epochs, "set": set_, "dataset": dataset, "name": name, "tune": tune or None}
    asked |= {"vary-teacher": vary_teacher or None}
    folder, chosen = _choose(what, asked, studies_dir, seeds)
    if what is None or not _is_begun(what):
        chosen = dataclasses.replace(chosen, precision=precision, threads=threads)
    if dry_run:
        points = chosen.points()
        typer.echo(f"{chosen.title}\n{len(points)} students of {len(chosen.settings)} settings:")
        for setting in chosen.settings:
            typer.echo(f"  {setting.name}")
        return
    place = Place(
        chosen,
        folder,
        device=str(choose_device(device)),
        data_dir=data_dir,
        quiet=quiet or json_,
        trust=Trust.of(trust_code, _typed(asked)),
    )
    keep_freed_memory()
    options = Options(
        jobs=_jobs(jobs), engine=engine, address=address, budget=budget, quiet=quiet or json_
    )
    finding = run_study(place, options)
    typer.echo(json.dumps(dataclasses.asdict(finding), default=str))


def _choose(
    what: str | None, asked: dict[str, Any], studies_dir: Path, seeds: int | None
) -> "tuple[Path, Study]":
    """Return the folder and the study that the arguments mean."""
    from fastnt.experiments.grid import parse_over
    from fastnt.experiments.named import STUDIES, own_grid
    from fastnt.experiments.results import STUDY_FILE
    from fastnt.experiments.study_files import read_study
    from fastnt.factory import is_own_teacher
    from fastnt.recipe_files import load_recipe

    given = [f"--{name}" for name, value in asked.items() if value is not None]
    if what is not None and _is_begun(what):
        if given:
            raise UserError(
                f"{what} is a study that was begun, whose {STUDY_FILE} says what is trained; leave "
                f"{', '.join(given)} out, or begin another study"
            )
        stored = read_study(Path(what) / STUDY_FILE)
        return Path(what), dataclasses.replace(stored, seeds=max(seeds or 0, stored.seeds))
    if what is not None and what.endswith(".toml"):
        if given and given != ["--name"]:
            raise UserError(f"{what} says what is trained; leave {', '.join(given)} out")
        chosen = read_study(Path(what))
    else:
        flags = {"student_network": asked["student"], "epochs": asked["epochs"]}
        typed = {key: value for key, value in flags.items() if value is not None}
        overrides = assignments(asked["set"] or [], typed) | typed
        # Code that the config names is looked at with all that the study names.
        recipe = load_recipe(asked["dataset"], asked["config"], overrides, trust=None)
        grid = parse_over(asked["over"] or [])
        if what is None:
            make = own_grid if grid else STUDIES["table3"]
            seeds = seeds or (5 if grid else 3)
        elif what in STUDIES:
            make = STUDIES[what]
        else:
            raise UserError(
                f"no study {what!r}: neither one of {', '.join(STUDIES)}, nor a .toml file, nor the "
                f"folder of a study that was begun"
            )
        chosen = make(recipe, grid)
        if asked["teacher"]:
            path = asked["teacher"]
            path = path if is_own_teacher(path) else str(Path(path).absolute())
            first = next(iter(chosen.teachers))
            teachers = {**chosen.teachers, first: {"teacher": path}}
            chosen = dataclasses.replace(chosen, teachers=teachers)
        chosen = dataclasses.replace(
            chosen,
            tune=asked["tune"] or 0,
            vary_teacher=bool(asked["vary-teacher"]),
        )
    if seeds is not None:
        chosen = dataclasses.replace(chosen, seeds=seeds)
    name = asked["name"] or f"{chosen.name}-{chosen.recipe.dataset_name}"
    return studies_dir / name, chosen


def _typed(asked: dict[str, Any]) -> list[str]:
    """The words of the command line that may name code."""
    values = [asked["student"], asked["teacher"], *assignments(asked["set"] or []).values()]
    for text in asked["over"] or []:
        values += text.partition("=")[2].split(",")
    return [value for value in values if value]


def _is_begun(what: str) -> bool:
    return (Path(what) / "study.toml").is_file()


def _jobs(text: str) -> int:
    if text == "auto":
        return 0
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"--jobs is {text!r}; it must be auto or at least 1")
    return int(text)
