"""The teacher's logits: one pass over the training and held-out images, stored and found again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastnt.cache import try_to_store
from fastnt.data.loaders import Loader, free_memory
from fastnt.data.preprocess import View
from fastnt.data.rows import Batch
from fastnt.errors import UserError, warn
from fastnt.files import cache_dir
from fastnt.recipe_keys import recipe_key
from fastnt.tensor_files import Damaged, load_tensors, save_tensors
from fastnt.training.compute import exact_float32
from fastnt.training.model import Model
from fastnt.training.probe import differs
from fastnt.training.progress import Progress
from fastnt.training.training_data import TrainingData

KIND = "logits"  # what the description of a stored file says it holds


@dataclass(frozen=True)
class TeacherLogits:
    """The teacher's float32 logits: (rows, C) of the training list, (m, C) of the held-out images.

    On the CPU; ``place_table`` brings a table to the device.
    """

    train: Tensor
    validation: Tensor


def teacher_logits(teacher: Model, data: TrainingData, progress: Progress) -> TeacherLogits:
    """Find the stored logits of ``teacher`` for a training list, or make and store them.

    They are made anew when the teacher does not compute any more what it did, and each time where two
    passes differ or the teacher was handed over as an object.

    Raises:
        UserError: the stored table belongs to another teacher or is damaged, or the teacher gives
            logits that are not finite.
    """
    digest, device = teacher.digest(), next(teacher.parameters()).device.type
    digests = {"data": data.digest, "teacher": digest, "device": device}
    key = recipe_key(data.recipe, digests=digests)
    path = cache_dir() / "logits" / f"{data.recipe.dataset_name}-{key[:16]}.safetensors"
    expected = {
        "holds": KIND,
        "teacher": digest,
        "device": device,  # each rounds in its own way
        "list": data.digest,
        "shape": [data.ordered.rows, data.validation.rows, teacher.classes],
    }
    probed = {} if teacher.is_object else teacher.probe()
    if probed and path.exists():
        tables = _read(path, expected)
        if not differs(tables, probed):
            return TeacherLogits(tables["train"], tables["validation"])
        warn(f"{teacher.notation} computes other logits than those stored; they are made anew")
    progress.begin("logits", 1, data.ordered.rows + data.validation.rows)
    tables = {
        "train": compute_logits(teacher, data.ordered, data.list_view, progress.advance),
        "validation": compute_logits(teacher, data.validation, advance=progress.advance),
    }
    _refuse_nonfinite(tables)
    if probed:
        try_to_store(
            "the teacher's logits are", lambda: save_tensors(path, expected, tables | probed)
        )
    elif not teacher.is_object:
        warn(f"{teacher.notation} computes something else each time: its logits are not kept")
    return TeacherLogits(tables["train"], tables["validation"])


@exact_float32()
@torch.inference_mode()
def compute_logits(
    teacher: Model,
    loader: Loader,
    views: Callable[[Batch], View | None] = lambda batch: None,
    advance: Callable[[int], None] = lambda images: None,
) -> Tensor:
    """Logits (rows, C), float32, on the CPU, of the images as ``views`` shows them.

    ``loader`` gives the rows in list order; ``advance`` is told of each batch.
    """
    was_training = teacher.training
    teacher.eval().lay_out()
    on_gpu = next(teacher.parameters()).is_cuda
    # Pinned, so that a batch is copied while the next is computed.
    table = torch.empty((loader.rows, teacher.classes), pin_memory=on_gpu)
    done = 0
    for batch in loader.epoch(0):
        rows = table[done : done + len(batch.labels)]
        rows.copy_(teacher(batch.images, views(batch)), non_blocking=on_gpu)
        done += len(rows)
        advance(len(rows))
    if on_gpu:
        torch.cuda.synchronize()
    teacher.train(was_training)
    return table


def place_table(table: Tensor, device: torch.device) -> Tensor:
    """Bring a table to the device; where it would fill a quarter of the free memory, map it there.

    A mapped table stays in pinned memory of the host, and the device reads its rows over the bus.
    """
    if device.type != "cuda" or table.nbytes * 4 <= free_memory(device):
        return table.to(device)
    return map_to_device(table, device)


def map_to_device(table: Tensor, device: torch.device) -> Tensor:
    """Copy ``table`` to pinned memory of the host and return a view of it on a CUDA device.

    The view is a tensor like any other: kernels, and graphs of them, read what they index.
    """
    with torch.cuda.device(device):
        return torch.as_tensor(_Mapped(table.contiguous().pin_memory()), device=device)


class _Mapped:
    """Pinned memory as the CUDA array interface describes it; a view keeps it alive."""

    def __init__(self, pinned: Tensor) -> None:
        self._pinned = pinned
        self.__cuda_array_interface__ = {
            "shape": tuple(pinned.shape),
            "typestr": pinned.numpy().dtype.str,
            # All pinned memory has one address for the host and the devices (unified addressing).
            "data": (pinned.data_ptr(), False),
            "version": 3,
        }


def _refuse_nonfinite(tables: dict[str, Tensor]) -> None:
    """Refuse logits that are not finite: no student could learn from them."""
    for table in tables.values():
        rows = len(table) - int(table.isfinite().all(1).sum())
        if rows:
            raise UserError(
                f"{rows:,} of {len(table):,} rows of the logits of the teacher are not finite; train it "
                "again, or give another with --teacher"
            )


def _read(path: Path, expected: dict[str, Any]) -> dict[str, Tensor]:
    try:
        found, tables = load_tensors(path)
    except Damaged as error:
        raise UserError(
            f"the logits table {path} cannot be used: {error}; delete it and run again"
        ) from error
    for key, value in expected.items():
        if found.get(key) != value:
            raise UserError(
                f"the logits table {path} is of another {key} ({found.get(key)}, not {value}); "
                "delete it and run again"
            )
    return tables
