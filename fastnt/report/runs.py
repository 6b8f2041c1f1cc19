"""Read the folders of runs, finished or not: their epochs, and a row for each network."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastnt.data import own
from fastnt.data.sources import SOURCES
from fastnt.errors import UserError
from fastnt.experiments.study_files import STUDY_FILE
from fastnt.monitoring.progress import STUDENTS, EpochRecord
from fastnt.paths import real_path
from fastnt.report.sentences import error_interval
from fastnt.runs.folder import RunFolder
from fastnt.runs.predictions import Predictions


@dataclass(frozen=True)
class SavedRun:
    """A run as it was read from its folder."""

    folder: Path
    name: str  # the folder's name, or its path where two folders have the same name
    recipe: dict[str, Any]
    compute: dict[str, Any]  # the arithmetic; it may be empty
    records: list[EpochRecord]  # in the order of training
    summary: dict[str, Any] | None  # None until the run has finished
    predictions: Predictions | None  # None if the folder has none
    planned: tuple[str, ...]  # the networks that it trains

    @property
    def dataset(self) -> str:
        """The data set's name."""
        name = str(self.recipe.get("dataset", "?"))
        return name if name in SOURCES else own.name_of(Path(name))

    def of_phase(self, phase: str) -> list[EpochRecord]:
        """Return the epochs of one network, in order."""
        return [record for record in self.records if record.phase == phase]

    @property
    def has_curves(self) -> bool:
        """Whether a student has ended an epoch."""
        return any(self.of_phase(phase) for phase in STUDENTS)

    @property
    def phases(self) -> list[str]:
        """The networks that were trained or will be."""
        named = [name for name, value in (self.summary or {}).items() if isinstance(value, dict)]
        return named or list(dict.fromkeys([*self.planned, *(r.phase for r in self.records)]))


@dataclass(frozen=True)
class Row:
    """One network of one run. Errors are fractions; what is not known (yet) is None."""

    run: str
    dataset: str
    seed: int
    network: str  # teacher, clean or noisy
    alpha: float | list[float] | None  # of the noisy student; a list where each teacher has its own
    sigma: float | list[float] | None
    differs: dict[str, Any]  # the keys in which the run differs from those on the same data set
    test_error: float | None
    test_wrong: int | None
    test_images: int | None
    test_interval: tuple[float, float] | None  # Wilson's, 95 %
    held_out_error: float | None  # after the last epoch; in float32 once the run is finished
    relative_improvement: float | None  # of the noisy student over the clean one, on the test set
    mcnemar_p: float | None  # of the noisy student against the clean one
    parameters: int | None
    multiplies: int | None
    images_per_second: float | None  # while it was trained; None for a teacher that was reused
    status: Literal["finished", "trained", "unfinished"]  # trained: but the run is unfinished
    epoch: int  # the number of the last epoch that ended
    epochs: int | None  # in the recipe


def runs_in(folder: Path) -> list[Path]:
    """Return the folder itself if it holds a run, else the runs in it, by name.

    Raises:
        UserError: it holds none; if it holds studies, the sentence names one.
    """
    if RunFolder(folder).config.is_file():
        return [folder]
    found = sorted(config.parent for config in folder.glob("*/config.json"))
    if found:
        return found
    studies = sorted(file.parent for file in folder.glob(f"*/{STUDY_FILE}"))
    if studies:
        raise UserError(
            f"{folder} holds studies, and each is reported by itself, as with fastnt report "
            f"{shlex.quote(str(studies[0]))}"
        )
    return [RunFolder(folder).require().path]


def read_runs(folders: Sequence[Path]) -> list[SavedRun]:
    """Read each folder once, in the order given.

    Raises:
        UserError: a folder holds no run, or a file in it is damaged.
    """
    unique = list({real_path(folder): folder for folder in folders}.values())
    names = [real_path(folder).name for folder in unique]
    return [
        _read_run(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(unique, names, strict=True)
    ]


def _read_run(folder: Path, name: str) -> SavedRun:
    files = RunFolder(folder).require()
    return SavedRun(
        folder=folder,
        name=name,
        recipe=files.recipe_values(),
        compute=files.environment().get("compute", {}),
        records=files.metrics.read(),
        summary=files.summary() if files.finished else None,
        predictions=files.predictions() if files.finished else None,
        planned=files.phases(),
    )


def rows(run: SavedRun, differs: dict[str, Any] | None = None) -> list[Row]:
    """Return a row for each network, the teacher first; ``differs`` is what ``differences`` gave."""
    return [_row(run, phase, differs or {}) for phase in run.phases]


def _row(run: SavedRun, phase: str, differs: dict[str, Any]) -> Row:
    recipe, summary = run.recipe, run.summary or {}
    result, records = summary.get(phase, {}), run.of_phase(phase)
    interval = error_interval(result)
    last = records[-1].validation_error if records else None
    noisy, teacher = phase == "noisy", phase.startswith("teacher")
    if run.summary is not None:
        status: Literal["finished", "trained", "unfinished"] = "finished"
    else:
        saved = RunFolder(run.folder).network(phase).exists()
        status = "trained" if saved else "unfinished"
    return Row(
        run=run.name,
        dataset=run.dataset,
        seed=int(recipe.get("seed", 0)),
        network=phase,
        alpha=(recipe.get("teacher_alphas") or recipe.get("alpha")) if noisy else None,
        sigma=recipe.get("sigma") if noisy else None,
        differs=differs,
        test_error=result.get("test_error"),
        test_wrong=result.get("test_wrong"),
        test_images=result.get("test_images"),
        test_interval=None if interval is None else (interval.low, interval.high),
        held_out_error=result.get("held_out_error", last),
        relative_improvement=summary.get("relative_improvement") if noisy else None,
        mcnemar_p=summary.get("mcnemar_p") if noisy else None,
        parameters=result.get("parameters"),
        multiplies=result.get("multiplies"),
        images_per_second=_speed(records),
        status=status,
        epoch=records[-1].epoch if records else 0,
        epochs=recipe.get("teacher_epochs" if teacher else "epochs"),
    )


def _speed(records: Sequence[EpochRecord]) -> float | None:
    """Return images/s over all epochs."""
    seconds = sum(record.seconds for record in records)
    images = sum(record.images_per_second * record.seconds for record in records)
    return images / seconds if seconds else None
