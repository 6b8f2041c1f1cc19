"""The teacher's logits: one pass over the training and held-out images, stored and found again."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fastnt.data.loaders import Loader
from fastnt.errors import UserError
from fastnt.files import atomic_path, cache_dir
from fastnt.training.model import Model

FORMAT = "fastnt-logits-1"


@dataclass(frozen=True)
class TeacherLogits:
    """The teacher's float32 logits: (rows, C) of the training list, (m, C) of the held-out images."""

    train: Tensor
    validation: Tensor


def teacher_logits(
    teacher: Model, train: Loader, validation: Loader, *, images: int, list_digest: str
) -> TeacherLogits:
    """Find the stored logits of ``teacher`` for a training list, or make and store them.

    Args:
        teacher: on the device; used in eval mode.
        train: the training list in list order; rows from ``images`` on are mirror images.
        validation: the held-out images in list order.
        images: images in one view.
        list_digest: hexadecimal digest of the data and the split.

    Raises:
        UserError: the stored table belongs to another teacher or is damaged.
    """
    device = next(teacher.parameters()).device
    digest = teacher.digest()
    path = cache_dir() / "logits" / list_digest[:16] / f"logits-{digest[:16]}.safetensors"
    expected = {
        "format": FORMAT,
        "teacher": digest,
        "list": list_digest,
        "shape": json.dumps([train.rows, validation.rows, teacher.classes]),
    }
    if not path.exists():
        tables = {
            "train": compute_logits(teacher, train, images),
            "validation": compute_logits(teacher, validation, validation.rows),
        }
        payload = safetensors.torch.save({k: v.cpu() for k, v in tables.items()}, expected)
        with atomic_path(path) as temporary:
            temporary.write_bytes(payload)
    tables = _read(path, expected)
    return TeacherLogits(tables["train"].to(device), tables["validation"].to(device))


@torch.inference_mode()
def compute_logits(teacher: Model, loader: Loader, images: int) -> Tensor:
    """Logits (rows, C), float32, of every row that ``loader`` yields, by row."""
    was_training = teacher.training
    teacher.eval()
    device = next(teacher.parameters()).device
    table = torch.empty((loader.rows, teacher.classes), device=device)
    for batch in loader.epoch(0):
        table[batch.index] = teacher(batch.images, batch.index >= images)
    teacher.train(was_training)
    return table


def _read(path: Path, expected: dict[str, str]) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
            tables = {name: file.get_tensor(name) for name in ("train", "validation")}
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"the logits table {path} is damaged ({error}); delete it and run again"
        ) from error
    for key, value in expected.items():
        if found.get(key) != value:
            raise UserError(
                f"the logits table {path} is of another {key} ({str(found.get(key))[:16]}, not "
                f"{value[:16]}); delete it and run again"
            )
    return tables


def list_digest(source_sha256: str, *parts: bytes) -> str:
    """Digest of a training list: the data's hash and the bytes that describe the split."""
    digest = hashlib.sha256(source_sha256.encode())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
