"""The compiled module ``fastnt._native``: whether it is there, its dtypes and its instruction set.

Its kernels share one pool of threads (pool.hpp), which has as many as ``torch.get_num_threads()``.
The launchers of the kernels (``noisy_l2/native.py``, ``augment/native.py``) call it.
"""

import os

import torch

try:
    from fastnt import _native
except ImportError:
    PRESENT = False
else:
    PRESENT = True
MISSING = "fastnt was installed without its native kernels (see `fastnt doctor`)"

# The numbers of `Dtype` in philox/dtype.hpp.
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}

# Tests and comparisons choose one of _native.isas(); without the variable the best is taken.
if PRESENT and (isa := os.environ.get("FASTNT_ISA")):
    _native.set_isa(isa)
