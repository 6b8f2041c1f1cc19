"""The options that several commands share, and how their values are read."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fastnt.errors import UserError

# The headings under which --help groups the options.
WHAT, WHERE = "What to train", "Where and how to compute"

# What to train.
Dataset = Annotated[
    str | None,
    typer.Option(
        help="digits, mnist, svhn, cifar10, or your own: a folder of pictures or .npy files, a "
        ".beton or a .npz file.",
        show_default="digits",
        rich_help_panel=WHAT,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(help="A recipe (.toml) or the config.json of a run.", rich_help_panel=WHAT),
]
Student = Annotated[
    str | None,
    typer.Option(
        help="Student network: a name, the paper's notation, such as FC800-FC10, or "
        "module:factory, your own.",
        rich_help_panel=WHAT,
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of each student.", rich_help_panel=WHAT)]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any other value of the recipe; may be given more than once.",
        metavar="KEY=VALUE",
        rich_help_panel=WHAT,
    ),
]


def teacher_option(more: str = "") -> Any:
    """Return the option ``--teacher``; ``more`` is what its help says besides."""
    return typer.Option(
        help=f"Take this teacher as it is, FILE.safetensors or module:factory{more}.",
        metavar="TEACHER",
        rich_help_panel=WHAT,
    )


# Where and how to compute.
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the official files; nothing is downloaded.", rich_help_panel=WHERE
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="auto takes the GPU where there is one.", rich_help_panel=WHERE),
]
NoGraph = Annotated[
    bool,
    typer.Option(
        "--no-graph",
        help="On a GPU launch each operation of a step by itself, not all as one graph.",
        rich_help_panel=WHERE,
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="On a GPU too the same bits every time, more slowly.",
        rich_help_panel=WHERE,
    ),
]

# Which run, and which of its networks.
RunFolder = Annotated[Path, typer.Argument(help="A run's folder.", metavar="RUN")]
Network = Annotated[
    Literal["noisy", "clean", "teacher"], typer.Option(help="Which network of the run.")
]

Only = Annotated[
    Literal["teacher", "clean", "noisy"] | None,
    typer.Option(
        help="Train this network alone: teacher, clean or noisy. A student brings its teacher.",
        metavar="NAME",
        rich_help_panel=WHAT,
    ),
]
Log = Annotated[
    Literal["tensorboard", "wandb"] | None,
    typer.Option(
        help="Also write each epoch for tensorboard or wandb, in the run's folder.", metavar="NAME"
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Call the module:factory that files name: only for files whose maker you trust.",
    ),
]


def parse_assignments(texts: Iterable[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Read the ``KEY=VALUE`` texts of ``--set``.

    Args:
        texts: one text for each ``--set``.
        taken: the keys that other options of the command set.

    Raises:
        UserError: a text has another form, or a key comes twice or is ``taken``.
    """
    values: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals:
            raise UserError(f"--set {text} is not KEY=VALUE, such as --set lr_decay=0.9")
        if key in taken or key in values:
            raise UserError(f"{key} is given twice, once by --set {text}; leave one out")
        values[key] = value.strip()
    if "teacher" in values:
        from fastnt.recipe_files import absolute_teacher

        values["teacher"] = absolute_teacher(values["teacher"])
    return values


def refuse_json_of_a_plan(*, dry_run: bool, json: bool) -> None:
    """Refuse ``--dry-run --json``.

    Raises:
        UserError: both are given.
    """
    if dry_run and json:
        raise UserError("--json prints what was found, and --dry-run trains nothing; leave one out")
