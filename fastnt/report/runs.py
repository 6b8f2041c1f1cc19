"""What run folders hold, finished or not: the epochs they recorded, and a row for each network."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastnt.errors import UserError
from fastnt.files import parse_json
from fastnt.runs.folder import RunFolder
from fastnt.training.progress import PHASES, EpochRecord

STUDENTS = ("clean", "noisy")


@dataclass(frozen=True)
class SavedRun:
    """A run as its folder tells it."""

    folder: Path
    name: str  # the folder's, or its path where two have the same
    recipe: dict[str, Any]
    records: list[EpochRecord]  # in the order of training
    summary: dict[str, Any] | None  # None until the run has finished

    def of_phase(self, phase: str) -> list[EpochRecord]:
        """The epochs of one network, in order."""
        return [record for record in self.records if record.phase == phase]

    @property
    def has_curves(self) -> bool:
        """Whether a student has ended an epoch."""
        return any(self.of_phase(phase) for phase in STUDENTS)

    @property
    def phases(self) -> list[str]:
        """The networks that were trained, or are to be."""
        named = [name for name, value in (self.summary or {}).items() if isinstance(value, dict)]
        return named or list(dict.fromkeys([*PHASES, *(record.phase for record in self.records)]))


@dataclass(frozen=True)
class Row:
    """One network of one run; errors are fractions, None is what is not known (yet)."""

    run: str
    dataset: str
    seed: int
    network: str  # teacher, clean or noisy
    alpha: float | list[float] | None  # of the noisy student; each teacher's where it has its own
    sigma: float | list[float] | None
    test_error: float | None
    held_out_error: float | None  # after its last epoch
    relative_improvement: float | None  # of the noisy student over the clean one, on the test set
    parameters: int | None
    multiplies: int | None
    images_per_second: float | None  # while it was trained; None for a teacher that was reused
    status: Literal["finished", "trained", "unfinished"]  # trained: saved, but the run goes on
    epoch: int  # the last that ended
    epochs: int | None  # as the recipe has them


def read_runs(folders: Sequence[Path]) -> list[SavedRun]:
    """Read each folder once, in the order given.

    Raises:
        UserError: a folder holds no run, or a file in it is damaged.
    """
    unique = list({folder.resolve(): folder for folder in folders}.values())
    names = [folder.resolve().name for folder in unique]
    return [
        _read_run(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(unique, names, strict=True)
    ]


def _read_run(folder: Path, name: str) -> SavedRun:
    files = RunFolder(folder).require()
    recipe = _read_object(files.config)
    return SavedRun(
        folder=folder,
        name=name,
        recipe=recipe,
        records=read_metrics(files.metrics),
        summary=files.summary() if files.finished else None,
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object; train the run again")
    return value


def read_metrics(path: Path) -> list[EpochRecord]:
    """Read metrics.jsonl; of an epoch that was recorded twice the later record counts.

    A last line that a kill cut short is passed over, and without the file there are no records.

    Raises:
        UserError: another line is not an epoch's record.
    """
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")  # behind the last whole line: nothing, or a part
    records: dict[tuple[str, int], EpochRecord] = {}
    for number, line in enumerate([*lines, last] if _is_whole(last) else lines, start=1):
        try:
            record = _record(parse_json(line))
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise UserError(
                f"line {number} of {path} is not an epoch's record; train the run again"
            ) from error
        records[record.phase, record.epoch] = record
    return list(records.values())


def _is_whole(line: bytes) -> bool:
    """Whether a line without its newline is a record nonetheless."""
    try:
        _record(parse_json(line))
    except (ValueError, TypeError, LookupError, OverflowError):
        return False
    return True


def _record(value: Any) -> EpochRecord:
    fields = {field.name: value[field.name] for field in dataclasses.fields(EpochRecord)}
    if not isinstance(fields["phase"], str) or not isinstance(fields["epoch"], int):
        raise TypeError
    numbers = {name: float(n) for name, n in fields.items() if name not in ("phase", "epoch")}
    return EpochRecord(phase=fields["phase"], epoch=fields["epoch"], **numbers)


def rows(run: SavedRun) -> list[Row]:
    """One row a network of the run, the teacher's first."""
    return [_row(run, phase) for phase in run.phases]


def _row(run: SavedRun, phase: str) -> Row:
    recipe, summary = run.recipe, run.summary or {}
    result, records = summary.get(phase, {}), run.of_phase(phase)
    noisy, teacher = phase == "noisy", phase.startswith("teacher")
    if run.summary is not None:
        status: Literal["finished", "trained", "unfinished"] = "finished"
    else:
        saved = RunFolder(run.folder).network(phase).exists()
        status = "trained" if saved else "unfinished"
    return Row(
        run=run.name,
        dataset=str(recipe.get("dataset", "?")),
        seed=int(recipe.get("seed", 0)),
        network=phase,
        alpha=(recipe.get("teacher_alphas") or recipe.get("alpha")) if noisy else None,
        sigma=recipe.get("sigma") if noisy else None,
        test_error=result.get("test_error"),
        held_out_error=records[-1].validation_error if records else None,
        relative_improvement=summary.get("relative_improvement") if noisy else None,
        parameters=result.get("parameters"),
        multiplies=result.get("multiplies"),
        images_per_second=_speed(records),
        status=status,
        epoch=records[-1].epoch if records else 0,
        epochs=recipe.get("teacher_epochs" if teacher else "epochs"),
    )


def _speed(records: Sequence[EpochRecord]) -> float | None:
    """Images/s over all epochs."""
    seconds = sum(record.seconds for record in records)
    images = sum(record.images_per_second * record.seconds for record in records)
    return images / seconds if seconds else None
