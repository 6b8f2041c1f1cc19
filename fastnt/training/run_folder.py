"""A run's folder: which one, who may write there, and what is written while the run goes on."""

import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastnt.config import Recipe
from fastnt.errors import UserError
from fastnt.files import locked, read_json, sweep, write_error, write_json, write_text
from fastnt.training.checkpoint import Checkpoints
from fastnt.training.progress import EpochRecord


def new_path(runs_dir: Path, dataset: str) -> Path:
    """Return a folder that is not there yet: the data set and the time."""
    stem = runs_dir / f"{dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
    several = (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2))
    return next(folder for folder in itertools.chain([stem], several) if not folder.exists())


def named_path(runs_dir: Path, name: str) -> Path:
    """Return the folder of the run ``name``.

    Raises:
        UserError: that is not the name of a folder.
    """
    if name in ("", "..") or Path(name).name != name:
        raise UserError(f"--run is {name!r}; it must be the name of a folder in --runs-dir")
    return runs_dir / name


def find_run(runs_dir: Path, name: str | None) -> "RunFolder":
    """Return the run ``name``, or without a name the unfinished one that was begun last.

    Raises:
        UserError: there is none that can be gone on with.
    """
    if name is None:
        runs = [RunFolder(config.parent) for config in runs_dir.glob("*/config.json")]
        unfinished = [run for run in runs if not run.finished and not run.without_checkpoints]
        if not unfinished:
            raise UserError(f"{runs_dir} holds no unfinished run; leave --resume out to begin one")
        return max(unfinished, key=lambda run: (run.config.stat().st_mtime_ns, run.path.name))
    run = RunFolder(named_path(runs_dir, name))
    if not run.config.is_file():
        raise UserError(f"{run.path} holds no run to go on with; leave --resume out to begin one")
    if not run.finished and run.without_checkpoints:
        raise UserError(
            f"{run.path} was begun by a release that kept no checkpoints; start it again with "
            f"--config {run.config} and another --run"
        )
    return run


class RunFolder:
    """A run's folder; ``checkpoint/`` is in it until the run is finished."""

    def __init__(self, path: Path) -> None:
        self.path, self.config = path, path / "config.json"
        self.checkpoints = Checkpoints(path / "checkpoint")

    @property
    def finished(self) -> bool:
        """Whether all is written; the summary comes last."""
        return (self.path / "summary.json").exists()

    @property
    def without_checkpoints(self) -> bool:
        """Whether a release began it that did not say enough to go on with it."""
        environment = self.environment()
        return bool(environment) and "compile" not in environment

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder against other processes; at the end of a finished run tidy up.

        Raises:
            UserError: another process holds it, or it cannot be made.
        """
        busy = f"{self.path} is being trained by another process; give another name with --run"
        with locked(self.checkpoints.folder / ".lock", busy):
            for folder in (self.path, self.checkpoints.folder):
                sweep(folder)
            yield
        if self.finished:
            self.checkpoints.clear()

    def refuse_used(self) -> None:
        """Refuse to begin a run in a folder that holds anything already.

        Raises:
            UserError: it says what, and how to go on with an unfinished run.
        """
        if not self.path.exists():
            return
        what, remedy = "other files", ""
        if self.path.is_dir():
            if not {entry.name for entry in self.path.iterdir()} - {self.checkpoints.folder.name}:
                return
            if self.finished:
                what = "another run"
            elif self.config.exists():
                what, remedy = "a run that did not finish", "go on with it with --resume, or "
        raise UserError(f"{self.path} already holds {what}; {remedy}choose another name with --run")

    @contextmanager
    def begun(self, recipe: Recipe, environment: dict[str, Any]) -> Iterator[None]:
        """Write what the run is before the block; if that refuses, take it back.

        Raises:
            UserError: the folder was used meanwhile, or it cannot be written.
        """
        self.refuse_used()
        try:
            write_json(self.config, asdict(recipe))
            self.describe(environment)
            yield
        except UserError:
            for name in ("environment.json", "config.json"):
                (self.path / name).unlink(missing_ok=True)
            raise

    def describe(self, environment: dict[str, Any]) -> None:
        """Write environment.json."""
        write_json(self.path / "environment.json", environment)

    def environment(self) -> dict[str, Any]:
        """What the run is computed with; empty when it was killed before that was written.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path / "environment.json"
        found = read_json(path) if path.exists() else {}
        if not isinstance(found, dict):
            raise UserError(f"{path} is damaged (no keys and values); restore it from a copy")
        return found

    def append(self, record: EpochRecord) -> None:
        """Append an epoch to metrics.jsonl, all of it or nothing.

        Raises:
            UserError: it cannot be written.
        """
        path = self._metrics
        try:
            size = path.stat().st_size if path.exists() else 0
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(_line(record))
            except OSError:
                with suppress(OSError):
                    os.truncate(path, size)
                raise
        except OSError as error:
            raise write_error(path, error) from error

    def put_back(self, records: Sequence[EpochRecord]) -> None:
        """Make metrics.jsonl hold these epochs and no others."""
        if records:
            write_text(self._metrics, "".join(map(_line, records)))
        else:
            self._metrics.unlink(missing_ok=True)

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.jsonl"


def _line(record: EpochRecord) -> str:
    return json.dumps(asdict(record)) + "\n"
