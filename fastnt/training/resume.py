"""Going on with a run: the recipe, the arithmetic and the data it was begun with, and no others."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from fastnt.config import Recipe
from fastnt.data.prepare import Dataset, list_prepared, open_dataset, prepare
from fastnt.data.sources import SOURCES
from fastnt.errors import UserError
from fastnt.training.precision import Precision
from fastnt.training.ranks import Device, Ranks
from fastnt.training.run_folder import RunFolder


def refuse_other_recipe(folder: RunFolder, recipe: Recipe, asked: Recipe) -> None:
    """Refuse to go on with the run of ``recipe`` as if it were another.

    Raises:
        UserError: ``asked`` differs; the message names the values.
    """
    before, now = asdict(recipe), asdict(asked)
    others = [
        f"{key} is {value!r}, not {now[key]!r}"
        for key, value in before.items()
        if value != now[key]
    ]
    if others:
        raise UserError(
            f"--resume goes on with the recipe of {folder.path}, where {', '.join(others)}; leave "
            "those options out, or begin a new run without --resume"
        )


def refuse_other_data(folder: RunFolder, recipe: Recipe, asked: Recipe) -> None:
    """Refuse to go on with a run on other data than those of ``recipe``.

    Raises:
        UserError: ``asked`` is a recipe for others.
    """
    if asked.dataset != recipe.dataset:
        raise UserError(
            f"{folder.path} was begun on {recipe.dataset}, not {asked.dataset}; leave --dataset out, "
            "and if the same data lie elsewhere now, give that place with --data-dir"
        )


def refuse_other_folder(folder: RunFolder, recipe: Recipe, ranks: Ranks) -> None:
    """Refuse to go on where a rank, on another machine, sees another run than the first does.

    Raises:
        UserError: naming the folder.
    """
    state = asdict(recipe), folder.environment(), folder.checkpoints.names()
    seen = json.dumps(state, sort_keys=True)
    same = ranks.tell(seen) == seen
    if same:
        ranks.wait()  # none changes the folder before all have looked
    else:
        raise UserError(
            f"{folder.path} is not what rank 0 sees there; give all machines one --runs-dir that they "
            "share"
        )


def same_device(folder: RunFolder, asked: Device) -> Device:
    """The device that the run was begun on, when ``asked`` is "auto"; else what was asked for."""
    before = folder.environment().get("device")
    if asked != "auto" or before is None:
        return asked
    return "cpu" if before == "cpu" else "cuda"


def same_arithmetic(
    folder: RunFolder,
    device: torch.device,
    precision: Precision | None,
    compile: bool | None,
    ranks: int = 1,
) -> tuple[Precision, bool] | None:
    """The precision and the compilation that a run was begun with; torch's threads are set to its.

    Args:
        folder: the run's.
        device: what it is to go on with.
        precision: what is asked for, or None for the same.
        compile: likewise.
        ranks: how many train it now.

    Returns:
        None when the run had not got so far that it matters.

    Raises:
        UserError: what is asked for differs: the result would not be that of an undisturbed run.
    """
    before = folder.environment()
    if not before:
        return None
    try:
        saved = Precision(getattr(torch, before["precision"]))
        compiled, threads, name = before["compile"], before["threads"], before["device"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder.path / 'environment.json'} does not say what the run was computed with; "
            "begin a new run without --resume"
        ) from error
    kind = "cpu" if name == "cpu" else "cuda"
    for what, was, wanted, remedy in (
        ("device", kind, device.type, f"--device {kind}"),
        ("precision", saved, precision or saved, "--amp and --no-amp left out"),
        (
            "ranks",
            before.get("ranks", 1),
            ranks,
            f"torchrun and {before.get('ranks', 1)} processes",
        ),
        (
            "determinism",
            before.get("deterministic", False),
            torch.are_deterministic_algorithms_enabled(),
            "--deterministic" if before.get("deterministic") else "--deterministic left out",
        ),
        ("compile", compiled, compiled if compile is None else compile, "--compile left out"),
    ):
        if was != wanted:
            raise UserError(
                f"{folder.path} was begun with another {what} ({before.get(what, was)}); resume it with "
                f"{remedy}"
            )
    torch.set_num_threads(threads)
    return saved, compiled


def same_data(
    folder: RunFolder, name: str, data_dir: Path | None, *, progress: bool = True
) -> Dataset:
    """Open the data that the run was made with; other files of the same name would not do.

    Raises:
        UserError: they cannot be had, or the folder does not say which they are.
    """
    wanted = folder.environment().get("source_sha256")
    if wanted is None:
        raise UserError(
            f"{folder.path / 'environment.json'} does not say which data the run used; "
            "train it again"
        )
    if data_dir is None:
        for prepared in list_prepared():
            if prepared.source_sha256 == wanted:
                return open_dataset(prepared.folder)
    if name not in SOURCES and data_dir is not None:  # the user's own, wherever they lie now
        name, data_dir = str(data_dir), None
    dataset = prepare(name, data_dir, progress=progress)
    if dataset.source_sha256 != wanted:
        raise UserError(
            f"{folder.path} was made with other files of {name} than those found; "
            "give theirs with --data-dir"
        )
    return dataset


def resume_command(
    folder: Path, data_dir: Path | None, ranks: int = 1, flags: Sequence[str] = ()
) -> str:
    """The command line that goes on with the run in ``folder``, ``flags`` given again."""
    words = ["fastnt", "train", "--resume", "--run", folder.name]
    if ranks > 1:
        words = ["torchrun", "--nproc-per-node", str(ranks), "-m", "--", *words]
    if folder.parent != Path("runs"):
        words += ["--runs-dir", str(folder.parent)]
    if data_dir is not None:
        words += ["--data-dir", str(data_dir)]
    words += flags
    return shlex.join(words)
