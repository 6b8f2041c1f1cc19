"""Compute the teacher's logits of the training and held-out images once, and keep them in the cache."""

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
from fastnt.monitoring.progress import Progress
from fastnt.network_probe import differs
from fastnt.recipe_keys import recipe_key
from fastnt.tensor_files import Damaged, load_tensors, save_tensors
from fastnt.training.compute import exact_float32
from fastnt.training.model import Model
from fastnt.training.training_data import TrainingData

KIND = "logits"  # the file's description says this under "holds"


@dataclass(frozen=True)
class TeacherLogits:
    """The teacher's float32 logits: (rows, C) of the training list, (m, C) of the held-out images.

    On the CPU; ``place_table`` brings a table to the device.
    """

    train: Tensor
    validation: Tensor


def teacher_logits(teacher: Model, data: TrainingData, progress: Progress) -> TeacherLogits:
    """Return the logits of ``teacher`` from the cache, or compute them and store them there.

    They are computed again if the teacher computes something else than it did. They are not stored if
    two passes of the teacher differ, or if it was passed as a module.

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
        "device": device,  # devices round differently
        "list": data.digest,
        "shape": [data.ordered.count, data.validation.count, teacher.classes],
    }
    probed = {} if teacher.is_object else teacher.probe()
    if probed and path.exists():
        tables = _read(path, expected)
        if not differs(tables, probed):
            return TeacherLogits(tables["train"], tables["validation"])
        warn(f"{teacher.notation} computes other logits than those stored; they are made anew")
    progress.begin("logits", 1, data.ordered.count + data.validation.count)
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
    """Return the logits (rows, C), float32, on the CPU, of the images as ``views`` shows them.

    ``loader`` has the rows in list order. ``advance`` is called with the size of each batch.
    """
    was_training = teacher.training
    teacher.eval().lay_out()
    on_gpu = next(teacher.parameters()).is_cuda
    # The table is pinned, so that a batch is copied while the next is computed.
    table = torch.empty((loader.count, teacher.classes), device="cpu", pin_memory=on_gpu)
    done = 0
    for batch in loader.epoch(0):
        part = table[done : done + len(batch.labels)]
        part.copy_(teacher(batch.images, views(batch)), non_blocking=on_gpu)
        done += len(part)
        advance(len(part))
    if on_gpu:
        torch.cuda.synchronize()
    teacher.train(was_training)
    return table


def place_table(table: Tensor, device: torch.device) -> Tensor:
    """Copy a table to the device; map it there if it would fill a quarter of the free memory.

    A mapped table stays in pinned host memory, and the device reads its rows over the bus.
    """
    if device.type != "cuda" or table.nbytes * 4 <= free_memory(device):
        return table.to(device)
    return map_to_device(table, device)


def map_to_device(table: Tensor, device: torch.device) -> Tensor:
    """Copy ``table`` to pinned host memory, and return it as a tensor on a CUDA device.

    Kernels and CUDA graphs can read this tensor like any other.
    """
    with torch.cuda.device(device):
        return torch.as_tensor(_Mapped(table.contiguous().pin_memory()), device=device)


class _Mapped:
    """Pinned memory with the CUDA array interface; tensors made from it keep it alive."""

    def __init__(self, pinned: Tensor) -> None:
        self._pinned = pinned
        self.__cuda_array_interface__ = {
            "shape": tuple(pinned.shape),
            "typestr": pinned.numpy().dtype.str,
            # Pinned memory has the same address on the host and on all devices (unified addressing).
            "data": (pinned.data_ptr(), False),
            "version": 3,
        }


def _refuse_nonfinite(tables: dict[str, Tensor]) -> None:
    """Refuse logits that are not finite, from which no student could learn."""
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
