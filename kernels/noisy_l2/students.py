"""Students whose batches differ: each has its own index.

The definition takes an index (S, N) as it is. The native and the Triton version take one index for all
students, and are called once for each of them. Their results are copied together, so that a student's
bits are those of a call of its own.
"""

import functools

import torch
from torch import Tensor

from fastnt.kernels.noisy_l2.signature import Options, Result, Tensors, ValueAndGrad


def one_by_one(version: ValueAndGrad) -> ValueAndGrad:
    """Return the version that takes an index (S, N), by calling ``version`` for each student."""
    return functools.partial(_one_by_one, version)


def _one_by_one(version: ValueAndGrad, tensors: Tensors, options: Options) -> Result:
    if tensors.student.shape[0] == 0:  # there is no row, and nothing to copy together
        return version(tensors._replace(index=None), options)
    results = [version(_student(tensors, s), options) for s in range(tensors.student.shape[0])]
    losses, grads = zip(*results, strict=True)
    return torch.cat(losses), None if options.grad_dtype is None else torch.cat(grads)


def _student(tensors: Tensors, s: int) -> Tensors:
    """Return what student ``s`` alone is called with, still with a first dimension of 1."""
    one_teacher = tensors.teacher.shape[0] == 1
    alone = {
        name: value[s : s + 1]
        for name, value in zip(Tensors._fields[2:7], tensors[2:7], strict=True)
        if isinstance(value, Tensor)  # a number is that of all students
    }
    assert tensors.index is not None
    return tensors._replace(
        student=tensors.student[s : s + 1],
        teacher=tensors.teacher if one_teacher else tensors.teacher[s : s + 1],
        index=tensors.index[s],
        **alone,
    )
