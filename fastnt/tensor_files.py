"""The verified file of tensors: a safetensors file with a description, and a SHA-256 over both."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fastnt.files import atomic_path, parse_json


def host_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous copies on the CPU; safetensors refuses tensors that share memory."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def sha256_tensors(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a description and of CPU tensors with their names, types and shapes."""
    digest = hashlib.sha256(json.dumps(description).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        # As bytes, since NumPy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: Path, description: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write tensors, a description and the SHA-256 of both to ``path`` atomically.

    Raises:
        UserError: the file cannot be written.
    """
    proven = {**description, "sha256": sha256_tensors(description, tensors)}
    # One key alone, since safetensors writes several in any order: equal contents give equal files.
    payload = safetensors.torch.save(tensors, {"fastnt": json.dumps(proven)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(payload)


class Damaged(Exception):
    """A file is not as ``save_tensors`` wrote it; the message says why."""


def load_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and verify what ``save_tensors`` wrote: the description, and the tensors on the CPU.

    Raises:
        Damaged: the file cannot be read, is not fastnt's, or has another SHA-256.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("fastnt", "null")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = parse_json(text)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise Damaged(f"it is not a whole safetensors file ({error})") from error
    if not isinstance(description, dict):
        raise Damaged("it has no description by fastnt")
    unchanged = json.dumps(description) == text  # or the hash would be over another text
    if description.pop("sha256", None) != sha256_tensors(description, tensors) or not unchanged:
        raise Damaged("it is damaged: its SHA-256 is another")
    return description, tensors
