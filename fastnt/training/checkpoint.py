"""Checkpoints: the state of a training in one verified safetensors file; the last two are kept."""

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fastnt.errors import UserError
from fastnt.monitoring.progress import PHASES, EpochRecord
from fastnt.tensor_files import Damaged, load_tensors, save_tensors

KIND = "checkpoint"  # the file's description says this under "holds"
INTERVAL = 30.0  # seconds between two checkpoints
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after ``batch`` batches of ``epoch``, counted from 0, of ``phase``."""

    phase: str
    epoch: int
    batch: int
    seconds: float  # of this epoch's training so far
    records: tuple[EpochRecord, ...]  # of all epochs so far
    timings: dict[str, float]  # seconds of all parts so far
    tensors: dict[str, Tensor]  # ``Trainer.state()``: the step's state and the network's probe
    # The facts that decide the results, ready for JSON. A resumed run compares them with its own.
    made_by: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write ``checkpoint`` to ``path`` atomically.

    Raises:
        UserError: the file cannot be written.
    """
    description = {"holds": KIND} | {
        name: value for name, value in vars(checkpoint).items() if name != "tensors"
    }
    description["records"] = [asdict(record) for record in checkpoint.records]
    save_tensors(path, description, checkpoint.tensors)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what ``save_checkpoint`` wrote, its tensors on the CPU.

    Raises:
        UserError: the file is damaged or no checkpoint.
    """
    try:
        description, tensors = load_tensors(path)
        if description.pop("holds") != KIND:
            raise ValueError("it holds something else")
        description["records"] = tuple(EpochRecord(**r) for r in description["records"])
        checkpoint = Checkpoint(tensors=tensors, **description)
        place = checkpoint.epoch, checkpoint.batch
        if checkpoint.phase not in PHASES or any(type(n) is not int or n < 0 for n in place):
            raise ValueError("it names no place in a training")
        return checkpoint
    except (Damaged, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"the checkpoint {path} is damaged ({error}); delete it, and --resume goes on from the "
            "one before, or from the beginning if there is none"
        ) from error


class Checkpoints:
    """A folder of checkpoints, numbered from the oldest to the newest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether INTERVAL has passed since the last was saved, or since this object was made."""
        return time.monotonic() - self._last >= INTERVAL

    def save(self, checkpoint: Checkpoint) -> None:
        """Save a checkpoint, and then delete all but the last two.

        Raises:
            UserError: it cannot be written; the earlier ones stay.
        """
        before = self._paths()
        number = int(before[-1].stem) + 1 if before else 1
        save_checkpoint(checkpoint, self.folder / f"{number:08d}.safetensors")
        for path in before[: 1 - KEPT]:
            path.unlink(missing_ok=True)
        self._last = time.monotonic()

    def newest(self) -> Checkpoint | None:
        """Load the newest checkpoint; None if there is none.

        Raises:
            UserError: the checkpoint is damaged.
        """
        paths = self._paths()
        return load_checkpoint(paths[-1]) if paths else None

    def names(self) -> list[str]:
        """Return the names of the files, from the oldest to the newest."""
        return [path.name for path in self._paths()]

    def clear(self) -> None:
        """Delete all checkpoints, and the folder if nothing else is in it."""
        with suppress(OSError):  # files that cannot be deleted do no harm
            for path in self._paths():
                path.unlink()
            self.folder.rmdir()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.safetensors"))
