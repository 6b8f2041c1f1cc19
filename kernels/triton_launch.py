"""What the launchers of all Triton kernels share."""

from typing import Any

import torch
from triton import knobs

# TRITON_INTERPRET=1 is read when a kernel is decorated: its launches then run on CPU tensors.
INTERPRETED: bool = knobs.runtime.interpret

# Products and sums fuse only where a kernel says fma, so that every compiler gives the same bits.
COMPILE_OPTIONS = {"enable_fp_fusion": False}

# torch.compile sees the kernels that a Triton op launches. The interpreter runs Python functions,
# which it cannot see into: there the op is opaque.
define_op: Any = torch.library.custom_op if INTERPRETED else torch.library.triton_op


def warps_of(threads: int) -> int:
    """Return the warps that hold so many threads: 32 a warp, on AMD 64."""
    return max(1, threads // (64 if torch.version.hip else 32))
