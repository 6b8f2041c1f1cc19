"""One hash for the tensors of a file and what it says of them: a flipped bit shows."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def sha256_tensors(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal SHA-256 of a description and of CPU tensors with their names, types and shapes."""
    digest = hashlib.sha256(json.dumps(description).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
