"""Plan a run: its recipe and its folder, before anything is computed or written.

A resumed run has the recipe, the arithmetic and the data with which it was begun.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fastnt.config import Recipe
from fastnt.distributed.ranks import Device, Ranks
from fastnt.errors import UserError
from fastnt.monitoring.progress import STUDENTS
from fastnt.paths import check_folder_name
from fastnt.recipe_files import load_recipe
from fastnt.runs.folder import Only, RunFolder
from fastnt.training.compute import PRECISIONS, Compute, Precision
from fastnt.trust import NOTHING, Trust

# What environment.json may contain about the arithmetic: in words, and as a test.
_ARITHMETIC: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "device": ("cpu or cuda", lambda v: v in ("cpu", "cuda")),
    "precision": (", ".join(PRECISIONS), lambda v: v in PRECISIONS),
    "compile": ("true or false", lambda v: isinstance(v, bool)),
    "deterministic": ("true or false", lambda v: isinstance(v, bool)),
    "ranks": ("a whole number from 1", lambda v: type(v) is int and v >= 1),
    "threads": (
        "a number from 1 to 1024",
        lambda v: v is None or (type(v) is int and 1 <= v <= 1024),
    ),
}


@dataclass(frozen=True)
class Plan:
    """A run that will be begun or resumed."""

    folder: RunFolder
    recipe: Recipe
    resume: bool = False
    only: Only | None = None  # the teacher alone, or one student beside its teacher

    @property
    def students(self) -> tuple[str, ...]:
        """The students that are trained."""
        return tuple(name for name in STUDENTS if self.only in (None, name))

    def device(self, asked: Device) -> Device:
        """Return the device that is asked for; for "auto", that on which a resumed run was begun."""
        if asked != "auto" or not self.resume:
            return asked
        return "cpu" if _arithmetic(self.folder)["device"] == "cpu" else "cuda"

    def agreed(self, ranks: Ranks) -> "Plan":
        """Return rank 0's plan for a new run, whose folder may be named after the time.

        Raises:
            UserError: this rank, on another machine, finds another run to resume than rank 0.
        """
        if not self.resume:
            path = ranks.broadcast_value(str(self.folder.path))
            return dataclasses.replace(self, folder=RunFolder(Path(path)))
        folder = self.folder
        state = asdict(self.recipe), folder.environment(), folder.checkpoints.names()
        seen = json.dumps(state, sort_keys=True)
        if ranks.broadcast_value(seen) != seen:
            raise UserError(
                f"{folder.path} is not what rank 0 sees there; give all machines one --runs-dir that "
                "they share"
            )
        ranks.barrier()  # no rank may change the folder before all have read it
        return self

    def compute(self, asked: Compute, *, amp: bool | None, compile: bool | None) -> Compute:
        """Return how to compute the run: as asked for, or, for a resumed run, as before.

        Args:
            asked: how this process would compute a new run.
            amp, compile: what the user asked for; None means as before.

        Raises:
            UserError: the run was begun with other arithmetic; the message says how to resume it.
        """
        if not self.resume:
            return asked
        before = _arithmetic(self.folder)
        precision = Precision(getattr(torch, before["precision"]))
        same = dataclasses.replace(
            asked,
            precision=precision if amp is None else asked.precision,
            compile=before["compile"] if compile is None else asked.compile,
            threads=before["threads"] or asked.threads,
            loader=self.folder.loader() if asked.loader == "auto" else asked.loader,
        )
        remedies = {
            "device": f"--device {before['device']}",
            "precision": "--amp and --no-amp left out",
            "ranks": f"torchrun and {before['ranks']} processes",
            "deterministic": "--deterministic" + ("" if before["deterministic"] else " left out"),
            "compile": "--compile left out",
        }
        now = same.describe()
        for what, remedy in remedies.items():
            if now[what] != before[what]:
                name = "determinism" if what == "deterministic" else what
                raise UserError(
                    f"{self.folder.path} was begun with another {name} ({before[what]}); resume it "
                    f"with {remedy}"
                )
        return same


def new_run(
    recipe: Recipe, runs_dir: Path, name: str | None = None, only: Only | None = None
) -> Plan:
    """Plan a new run in the folder ``name``, by default named after the data set and the time.

    ``only`` names the one network to train; a student's teacher is found or trained too.

    Raises:
        UserError: the name is not allowed, or the folder is not empty.
    """
    if name is None:
        stem = runs_dir / f"{recipe.dataset_name}-{time.strftime('%Y%m%d-%H%M%S')}"
        several = (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2))
        path = next(folder for folder in itertools.chain([stem], several) if not folder.exists())
    else:
        path = _named(runs_dir, name)
    folder = RunFolder(path)
    folder.refuse_used()
    return Plan(folder, recipe, only=only)


def resumed_run(
    runs_dir: Path,
    name: str | None = None,
    *,
    dataset: str | None = None,
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    only: Only | None = None,
    trust: Trust = NOTHING,
) -> Plan:
    """Plan to resume the run ``name``, by default the unfinished run that was begun last.

    Args:
        runs_dir: the folder of the runs.
        name: the name of the run's folder.
        dataset, config, overrides, only: what the user asks for, which must be what the run was begun
            with.
        trust: which code the folder may name.

    Raises:
        UserError: there is no such run, what is asked for differs from its recipe, or it names code
            that is not trusted.
    """
    folder = find_run(runs_dir, name)
    recipe = folder.recipe()
    if dataset is not None and (other := load_recipe(dataset).dataset) != recipe.dataset:
        raise UserError(
            f"{folder.path} was begun on {recipe.dataset}, not {other}; leave --dataset out, and if "
            "the same data lie elsewhere now, give that place with --data-dir"
        )
    before = asdict(recipe)
    now = asdict(load_recipe(dataset, config or folder.config, overrides, trust=trust))
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
    begun_with = folder.only()
    if only not in (None, begun_with):
        raise UserError(
            f"{folder.path} was begun with {f'--only {begun_with}' if begun_with else 'both students'}, "
            f"not --only {only}; leave that out, or begin a new run without --resume"
        )
    return Plan(folder, recipe, resume=True, only=begun_with)


def find_run(runs_dir: Path, name: str | None) -> RunFolder:
    """Return the folder of the run ``name``, by default of the unfinished run that was begun last.

    Raises:
        UserError: there is no such run.
    """
    if name is None:
        runs = [RunFolder(config.parent) for config in runs_dir.glob("*/config.json")]
        unfinished = [run for run in runs if not run.finished]
        if not unfinished:
            raise UserError(f"{runs_dir} holds no unfinished run; leave --resume out to begin one")
        return max(unfinished, key=lambda run: (run.config.stat().st_mtime_ns, run.path.name))
    run = RunFolder(_named(runs_dir, name))
    if not run.config.is_file():
        raise UserError(f"{run.path} holds no run to go on with; leave --resume out to begin one")
    return run


def _named(runs_dir: Path, name: str) -> Path:
    return runs_dir / check_folder_name(name, "--run", "--runs-dir")


def _arithmetic(folder: RunFolder) -> dict[str, Any]:
    """Return a run's arithmetic.

    Raises:
        UserError: environment.json is missing or damaged.
    """
    record = folder.environment().get("compute")
    if not isinstance(record, dict):
        record = {}
    for key, (words, holds) in _ARITHMETIC.items():
        if key not in record or not holds(record[key]):
            raise UserError(
                f"{folder.path / 'environment.json'} says that {key} is {record.get(key)!r}, and it can "
                f"only be {words}; restore the file, or begin a new run without --resume"
            )
    if (record["threads"] is None) == (record["device"] == "cpu"):
        raise UserError(
            f"{folder.path / 'environment.json'} says that threads is {record['threads']!r} on "
            f"{record['device']}; restore the file, or begin a new run without --resume"
        )
    return record
