"""The teacher's logits: one pass over the training and held-out images, stored and found again."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fastnt.data.loaders import Batch, Loader
from fastnt.data.preprocess import View
from fastnt.errors import UserError
from fastnt.files import atomic_path, cache_dir
from fastnt.training.model import Model
from fastnt.training.training_data import TrainingData

FORMAT = "fastnt-logits-1"


@dataclass(frozen=True)
class TeacherLogits:
    """The teacher's float32 logits: (rows, C) of the training list, (m, C) of the held-out images."""

    train: Tensor
    validation: Tensor


def teacher_logits(teacher: Model, data: TrainingData) -> TeacherLogits:
    """Find the stored logits of ``teacher`` for a training list, or make and store them.

    Raises:
        UserError: the stored table belongs to another teacher or is damaged, or the teacher gives
            logits that are not finite.
    """
    device = next(teacher.parameters()).device
    digest = teacher.digest()
    path = cache_dir() / "logits" / data.digest[:16] / f"logits-{digest[:16]}.safetensors"
    expected = {
        "format": FORMAT,
        "teacher": digest,
        "list": data.digest,
        "shape": [data.ordered.rows, data.validation.rows, teacher.classes],
    }
    if not path.exists():
        tables = {
            "train": compute_logits(teacher, data.ordered, data.list_view).cpu(),
            "validation": compute_logits(teacher, data.validation).cpu(),
        }
        _refuse_nonfinite(tables, "the teacher", "train it again, or give another with --teacher")
        payload = safetensors.torch.save(tables, {"fastnt": json.dumps(expected)})
        with atomic_path(path) as temporary:
            temporary.write_bytes(payload)
    tables = _read(path, expected)
    _refuse_nonfinite(tables, f"the table {path}", "delete it and run again")
    return TeacherLogits(tables["train"].to(device), tables["validation"].to(device))


@torch.inference_mode()
def compute_logits(
    teacher: Model, loader: Loader, views: Callable[[Batch], View | None] = lambda batch: None
) -> Tensor:
    """Logits (rows, C), float32, by row, of the images as ``views`` shows them."""
    was_training = teacher.training
    teacher.eval()
    device = next(teacher.parameters()).device
    table = torch.empty((loader.rows, teacher.classes), device=device)
    for batch in loader.epoch(0):
        table[batch.index] = teacher(batch.images, views(batch))
    teacher.train(was_training)
    return table


def _refuse_nonfinite(tables: dict[str, Tensor], whose: str, remedy: str) -> None:
    """Refuse logits that are not finite: no student could learn from them."""
    for table in tables.values():
        rows = len(table) - int(table.isfinite().all(1).sum())
        if rows:
            raise UserError(
                f"{rows:,} of {len(table):,} rows of the logits of {whose} are not finite; {remedy}"
            )


def _read(path: Path, expected: dict[str, Any]) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get("fastnt", "{}"))
            tables = {name: file.get_tensor(name) for name in ("train", "validation")}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"the logits table {path} is damaged ({error}); delete it and run again"
        ) from error
    for key, value in expected.items():
        if found.get(key) != value:
            raise UserError(
                f"the logits table {path} is of another {key} ({found.get(key)}, not {value}); "
                "delete it and run again"
            )
    return tables
