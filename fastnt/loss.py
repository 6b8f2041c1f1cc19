"""The noisy-teacher L2 loss (Sau & Balasubramanian 2016), as functions."""

from typing import Literal

import torch
from torch import Tensor

from fastnt.argument_checks import (
    Number,
    Sigma,
    check_logits,
    check_options,
    check_teacher_id,
)
from fastnt.arguments import classes_last, loss_shape, make_tensors
from fastnt.kernels.noisy_l2.op import choose, for_index, noisy_l2, view_as

Noise = Literal["logit", "shared"]
Perturb = Literal["teacher", "student"]
Reduction = Literal["none", "sum", "batchmean", "mean"]
Impl = Literal["auto", "triton", "native", "compile", "eager"]


def noisy_l2_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    alpha: Number,
    sigma: Sigma,
    seed: int | Tensor | None = None,
    step: int | Tensor = 0,
    index: Tensor | None = None,
    students: bool = False,
    noise: Noise = "logit",
    perturb: Perturb = "teacher",
    reduction: Reduction = "batchmean",
    dim: int = -1,
    impl: Impl = "auto",
) -> Tensor:
    """Return the L2 loss between a student's logits and a noisy teacher's, differentiable once.

    Each sample is selected with probability ``alpha``; the teacher's logits z of a selected sample
    become (1 + xi) * z with xi ~ N(0, sigma^2) (Sau & Balasubramanian, arXiv 1610.09650, Eq. 2),
    and the loss of a sample is half the squared distance to them. Only ``student`` has a gradient.

    All noise is a pure function of (seed, step, row, class). A fixed ``seed`` and ``step`` without
    ``index`` therefore give the same noise in every call, micro-batch and rank: advance ``step``, and
    pass the row of each sample as ``index``. With neither ``seed`` nor ``index``, the ranks of
    torch.distributed draw different noise even after the same ``torch.manual_seed``. For frozen noise,
    one draw for each sample, pass ``index`` and leave ``step`` at 0.

    A CUDA graph repeats numbers at each replay: in one, give ``step`` as a tensor and advance it there,
    or no ``seed``. Under torch.compile pass what changes (alpha, sigma, seed, step) as tensors.
    torch.func.vmap over students, teachers, alpha, sigma, seed or step takes one launch, as with
    ``students``; over ``index`` it takes one launch for each place. Without ``seed``, vmap needs its
    argument ``randomness``. There is no second derivative: asking for one, or for create_graph=True, is a
    RuntimeError outside torch.compile. Compiled code may leave it out without a word.

    Args:
        student: logits (..., C), whose leading dimensions are samples; (S, ..., C) with ``students``.
            float32, bfloat16 and float16 are computed in float32, float64 in float64.
        teacher: logits of the student's shape; with ``students`` also (..., C), for all students.
        alpha: probability in [0, 1] that a sample is selected.
        sigma: standard deviation of the noise; or a pair (low, high), between which each step draws
            its sigma uniformly (section 5.4).
        seed: any integer, taken modulo 2^64. None draws a seed from the default generator of the
            student's device, which ``torch.manual_seed`` seeds: every call has fresh noise.
        step: number of the training step, below 2^32.
        index: the row of each sample in the training list, (number of samples,) int64, below 2^32.
            None: the rows are the places in the batch. With ``students`` also (S, number of samples).
        students: the first dimension counts students, which have separate losses. alpha, sigma, seed
            and step may then be tensors (S,). A student's loss, gradient and noise are those of a call
            for it alone: students of one seed share their draws, and no value of one reaches another.
        noise: "logit": each logit has its own xi; "shared": one xi of shape (C,) for the batch.
        perturb: "teacher"; or "student": (1 + xi) multiplies the student's logits instead.
        reduction: "batchmean": the sum over the samples / number of samples (Eq. 3); "sum"; "none":
            one loss a sample; "mean": as ``F.mse_loss``, without 1/2 and divided by all elements.
        dim: the dimension of the student's logits that counts the classes. It is 1 for dense logits
            (N, C, H, W), whose samples are the pixels (N, H, W), in this order. Such logits are read in
            place if they are channels_last, else from a copy.
        impl: "auto", or the version to use: "triton", "native", "compile", "eager".

    alpha, sigma, seed and step are numbers or 0-D tensors, on the CPU or the student's device.

    Returns:
        The loss, float32 (float64 for float64): 0-D; (...) for "none"; (S,) or (S, ...) with
        ``students``. Without samples it is 0.

    Raises:
        TypeError: an argument has the wrong type or dtype.
        ValueError: an argument has a value, shape or device that is not allowed, requires a
            gradient though it is not ``student`` or ``teacher``, or ``impl`` cannot run here.
    """
    options = check_options(noise, perturb, reduction)
    check_logits(student, teacher, students)
    if dim != -1:
        student, teacher = classes_last(student, teacher, dim, students)
    version = choose(impl, student)
    tensors = make_tensors(
        student, teacher, alpha, sigma, seed, step, index, students, version=version
    )
    shape = loss_shape(student, students, reduction)
    return noisy_l2(student, tensors, options, for_index(version, index), shape)


def noisy_l2_value_and_grad(
    student: Tensor,
    teacher: Tensor,
    *,
    alpha: Number,
    sigma: Sigma,
    seed: int | Tensor | None = None,
    step: int | Tensor = 0,
    index: Tensor | None = None,
    students: bool = False,
    noise: Noise = "logit",
    perturb: Perturb = "teacher",
    reduction: Reduction = "batchmean",
    dim: int = -1,
    impl: Impl = "auto",
    grad_scale: Number | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient for ``logits.backward(grad)``, in one pass over memory.

    The arguments are those of `noisy_l2_loss`. With ``reduction="none"`` or ``students``, the gradient is
    that of the sum of the returned losses. Neither result is part of an autograd graph.

    Args:
        grad_scale: number or 0-D tensor on the student's device, such as the loss scale of mixed
            precision. It multiplies the gradient, but not the loss, before rounding to the student's
            dtype.

    Returns:
        The loss, as `noisy_l2_loss` returns it; and the gradient, in the student's shape and dtype,
        contiguous, or with the classes last in memory if ``dim`` is given.

    Raises:
        TypeError: as `noisy_l2_loss`.
        ValueError: as `noisy_l2_loss`.
    """
    options = check_options(noise, perturb, reduction)
    check_logits(student, teacher, students)
    if dim != -1:
        student, teacher = classes_last(student, teacher, dim, students)
    version = choose(impl, student)
    tensors = make_tensors(
        student, teacher, alpha, sigma, seed, step, index, students, grad_scale, version=version
    )
    with torch.no_grad():
        loss, grad = for_index(version, index)(tensors, options.with_grad(student.dtype))
    assert grad is not None
    grad = view_as(grad, student.shape)
    loss = view_as(loss, loss_shape(student, students, reduction))
    return loss, grad if dim == -1 else grad.movedim(-1, dim)


def noisy_logits(
    logits: Tensor,
    *,
    alpha: Number,
    sigma: Sigma,
    seed: int | Tensor | None = None,
    step: int | Tensor = 0,
    index: Tensor | None = None,
    noise: Noise = "logit",
    teacher_id: int = 0,
    dim: int = -1,
    impl: Impl = "auto",
) -> Tensor:
    """Return a teacher's logits (..., C) with noise, which are the targets of `noisy_l2_loss`.

    Use them as targets of any other loss. The arguments are those of `noisy_l2_loss`. Teachers with
    different ``teacher_id``, below 2^24, have different masks and noise.

    The kernel of the loss computes them: for student logits of 0, its gradient times -1 is the noisy
    logits, rounded once.

    Returns:
        Logits of the same shape and dtype, without a gradient; contiguous, or with the classes last in
        memory if ``dim`` is given.

    Raises:
        TypeError: as `noisy_l2_loss`.
        ValueError: as `noisy_l2_loss`.
    """
    options = check_options(noise, "teacher", "sum")
    check_logits(logits, logits, False, "logits")
    teacher_id = check_teacher_id(teacher_id)
    if dim != -1:
        logits, _ = classes_last(logits, logits, dim, False)
    version = choose(impl, logits)
    zeros = torch.zeros_like(logits)
    tensors = make_tensors(
        zeros, logits, alpha, sigma, seed, step, index, False, grad_scale=-1.0, version=version
    )
    options = options._replace(grad_dtype=logits.dtype, teacher_id=teacher_id)
    with torch.no_grad():
        _, grad = version(tensors, options)
    assert grad is not None
    noisy = view_as(grad, logits.shape)
    return noisy if dim == -1 else noisy.movedim(-1, dim)
