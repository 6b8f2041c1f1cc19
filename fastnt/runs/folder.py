"""A run's folder: its files, in the order in which they are begun.

Each file appears complete or not at all, with three exceptions. metrics.jsonl grows line by line: a kill
can leave half a line, and --resume writes the file again with the epochs of the newest checkpoint, from
which it goes on; epochs after that are trained again. tensorboard/ and wandb/ belong to those libraries.
A kill can leave a hidden .part file too, which the next process removes. Before config.json is there, the
folder is no run: the same command with the same --run begins it anew. Data are prepared in the cache
first; a teacher that is trained goes there too, its stored logits there alone.

checkpoint/        .lock, which one process holds,  until the run is finished; saved each half minute,
                   and the last two checkpoints     at the end of a training and at the first signal
environment.json   arithmetic, data, machine       when all is checked, before anything is trained
config.json        the recipe                      next: now the folder holds a run
metrics.jsonl      a line an epoch                 grows while the run goes on
trace.json         a Chrome trace of some steps    with --profile, when they were taken
NAME.safetensors   each network                    when it is ready
tensorboard/, wandb/  each epoch again             with --log, while the run goes on
predictions.safetensors, timings.json, curves.png, README.md (the model card), summary.json: at the end,
                   in this order
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

from fastnt.config import FIELDS, Recipe
from fastnt.data.loaders import LoaderKind
from fastnt.errors import UserError
from fastnt.files import locked, read_json, sweep, write_json, write_text
from fastnt.monitoring.progress import PHASES
from fastnt.recipe_files import convert, load_recipe
from fastnt.runs.metrics import Metrics
from fastnt.runs.predictions import Predictions, load_predictions
from fastnt.runs.summary import check_summary, check_timings
from fastnt.sealed import seal, unseal
from fastnt.training.checkpoint import Checkpoints
from fastnt.training.model import Model

Only = Literal["teacher", "clean", "noisy"]


class RunFolder:
    """The folder of one run, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path, self.config = path, path / "config.json"
        self.checkpoints = Checkpoints(path / "checkpoint")
        self.metrics = Metrics(path / "metrics.jsonl")

    def network(self, name: str) -> Path:
        """Return the file of the network ``name``: teacher, clean, noisy, teacher-1 ..."""
        return self.path / f"{name}.safetensors"

    @property
    def picture(self) -> Path:
        """The picture of the students' curves."""
        return self.path / "curves.png"

    @property
    def trace(self) -> Path:
        """The Chrome trace of some steps."""
        return self.path / "trace.json"

    @property
    def finished(self) -> bool:
        """Whether the run is finished: its summary is written last."""
        return self._summary.exists()

    def require(self) -> "RunFolder":
        """Return this folder if it holds a run.

        Raises:
            UserError: it holds none.
        """
        if not self.config.is_file():
            raise UserError(f"{self.path} holds no run; give a folder that fastnt train wrote")
        return self

    def recipe(self) -> Recipe:
        """Read the recipe; the code that it names is not checked for trust.

        Raises:
            UserError: config.json is missing or damaged.
        """
        return load_recipe(None, self.config, trust=None)

    def recipe_values(self) -> dict[str, Any]:
        """Read the recipe as it was written, even if its data are not there any more.

        Raises:
            UserError: config.json is missing or damaged, or a known key's value has another type.
        """
        values = read_json(self.config)
        if not isinstance(values, dict):
            raise UserError(
                f"{self.config} is damaged (no keys and values); restore it from a copy"
            )
        for key in values.keys() & FIELDS:
            convert(key, values[key], str(self.config))
        return values

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder during the block; remove temporary files that a killed process left.

        Raises:
            UserError: another process has locked it, or it cannot be made.
        """
        busy = f"{self.path} is being trained by another process; give another name with --run"
        with locked(self.checkpoints.folder / ".lock", busy):
            sweep(self.path, shared=True)  # fastnt export may be writing into it
            sweep(self.checkpoints.folder)
            yield
        if self.finished:
            self.checkpoints.clear()

    def refuse_used(self) -> None:
        """Refuse to begin a run in a folder that is not empty.

        Raises:
            UserError: the message says what is there, and how to resume an unfinished run.
        """
        if not self.path.exists():
            return
        what, remedy = "other files", ""
        if self.path.is_dir():
            # What a kill left before config.json was written is no run: it is swept or written again.
            passed_over = {entry.name for entry in self.path.glob(".*.part")}
            passed_over |= {self.checkpoints.folder.name, self._environment.name}
            if not {entry.name for entry in self.path.iterdir()} - passed_over:
                return
            if self.finished:
                what = "another run"
            elif self.config.exists():
                what, remedy = "a run that did not finish", "go on with it with --resume, or "
        raise UserError(f"{self.path} already holds {what}; {remedy}choose another name with --run")

    def begin(self, recipe: Recipe, environment: dict[str, Any]) -> None:
        """Write environment.json, then config.json: a folder with a recipe says how it is computed.

        Raises:
            UserError: the folder cannot be written.
        """
        write_json(self._environment, environment)
        write_json(self.config, asdict(recipe))

    def environment(self) -> dict[str, Any]:
        """Read environment.json; empty if it is missing.

        Raises:
            UserError: the file is damaged.
        """
        found = read_json(self._environment) if self._environment.exists() else {}
        if not isinstance(found, dict) or not isinstance(found.get("compute", {}), dict):
            raise UserError(
                f"{self._environment} is damaged (no keys and values); restore it from a copy"
            )
        return found

    def only(self) -> Only | None:
        """Read which one network the run trains; None: the teacher and both students.

        Raises:
            UserError: environment.json is damaged.
        """
        only = self.environment().get("only")
        if only not in (None, *PHASES):
            raise UserError(
                f"{self._environment} says that only {only!r} is trained, and it can only be one of "
                f"{', '.join(PHASES)}; restore it from a copy"
            )
        return cast(Only | None, only)

    def loader(self) -> LoaderKind:
        """Read with which loader the run was begun.

        Raises:
            UserError: environment.json is missing or damaged.
        """
        loader = self.environment().get("loader")
        if loader not in ("ffcv", "resident"):
            raise UserError(
                f"{self._environment} says that the loader is {loader!r}, and it can only be ffcv or "
                "resident; restore it from a copy"
            )
        return cast(LoaderKind, loader)

    def phases(self) -> tuple[str, ...]:
        """The networks that the run trains: the teacher and its students."""
        only = self.only()
        return PHASES if only is None else tuple(dict.fromkeys(("teacher", only)))

    def save_network(self, model: Model, name: str) -> None:
        """Save a network."""
        model.save(self.network(name))

    def save_predictions(self, predictions: Predictions) -> None:
        """Save what the networks predict on the test set."""
        predictions.save(self._predictions)

    def predictions(self) -> Predictions | None:
        """Read what the networks predict; None if there is no such file.

        Raises:
            UserError: the file is damaged.
        """
        return load_predictions(self._predictions) if self._predictions.exists() else None

    def write_timings(self, timings: dict[str, float]) -> None:
        """Write timings.json: seconds of each part and images/s of each training, by name."""
        write_json(self._timings, seal(timings))

    def timings(self) -> dict[str, float]:
        """Read timings.json.

        Raises:
            UserError: it is missing or damaged.
        """
        return check_timings(_read_sealed(self._timings), self._timings)

    def write_card(self, card: str) -> None:
        """Write README.md, the model card."""
        write_text(self.path / "README.md", card)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json, which finishes the run."""
        write_json(self._summary, seal(summary))

    def summary(self) -> dict[str, Any]:
        """Read summary.json.

        Raises:
            UserError: it is missing or damaged.
        """
        return check_summary(_read_sealed(self._summary), self._summary)

    @property
    def _environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def _predictions(self) -> Path:
        return self.path / "predictions.safetensors"

    @property
    def _timings(self) -> Path:
        return self.path / "timings.json"

    @property
    def _summary(self) -> Path:
        return self.path / "summary.json"


def _read_sealed(path: Path) -> dict[str, Any]:
    try:
        return unseal(read_json(path))
    except ValueError as error:
        raise UserError(
            f"{path} is damaged: {error}; restore it from a copy, or train the run again"
        ) from error
