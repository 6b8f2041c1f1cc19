"""The noisy-teacher L2 loss in eager PyTorch: the definition every other version is held to.

For S students, N samples and C classes, with g = student (S, N, C) and z = teacher (S or 1, N, C),

    m[s, i]      u(stream 1, row i) < alpha[s]            the mask: which samples are perturbed
    xi[s, i, c]  sigma[s] * n(stream 0, row i, class c)   the noise; stream 2 and row 0 when shared
    f            1 + m * xi
    r            g - f * z                                noise on the teacher, or
                 f * g - z                                noise on the student
    loss[s, i]   0.5 * sum over c of r^2                  reduction "none"
    dloss/dg     r, or f * r with noise on the student

and over the samples: "sum"; "batchmean", the sum / N; "mean", 2 * sum / (N * C), as `F.mse_loss`.
Row i is ``index[i]`` (or ``index[s, i]``, where each student has its own), or i itself. alpha, sigma
(float32), seed and step (int64) are (S,). With ``sigma_high`` the sigma of a step is
sigma + (sigma_high - sigma) * u(stream 4, row 0). u is `uniform24` for the mask and `uniform23`, as in
the normals, for sigma. Arithmetic is float32, or float64 when the student is float64.

Source: Sau & Balasubramanian, "Deep model compression: distilling knowledge from noisy teachers",
arXiv 1610.09650: Eq. 2 and 3, noise on the student in section 5.2, random sigma in section 5.4.
"""

import torch
from torch import Tensor

from fastnt.kernels.noisy_l2.signature import Options, Result, Tensors
from fastnt.kernels.philox.eager import (
    MASK,
    NOISE,
    RANDOM_SIGMA,
    SHARED_NOISE,
    normals,
    philox4x32,
    uniform23,
    uniform24,
)


def selected_rows(
    alpha: Tensor, seed: Tensor, step: Tensor, rows: Tensor, *, teacher_id: int = 0
) -> Tensor:
    """Return the mask (S, N) bool of the rows (N,) or (S, N) to perturb; the others are (S,)."""
    stream = MASK + 256 * teacher_id
    word, *_ = philox4x32(0, rows, step[:, None], stream, seed[:, None])
    return uniform24(word) < alpha[:, None]


def draw_xi(
    sigma: Tensor,
    seed: Tensor,
    step: Tensor,
    rows: Tensor,
    classes: int,
    *,
    shared: bool,
    teacher_id: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return xi, (S, N, C), or (S, 1, C) when shared, of rows (N,) or (S, N); the others are (S,)."""
    stream = (SHARED_NOISE if shared else NOISE) + 256 * teacher_id
    if shared:
        rows = rows.new_zeros(1)
    groups = torch.arange((classes + 3) // 4, device=rows.device)
    words = philox4x32(
        groups, rows[..., None], step[:, None, None], stream, seed[:, None, None]
    )  # (S, N, C / 4) each
    return sigma[:, None, None] * normals(words, dtype).flatten(-2)[..., :classes]


def draw_sigma(
    low: Tensor, high: Tensor, seed: Tensor, step: Tensor, *, teacher_id: int = 0
) -> Tensor:
    """Return the sigma of each student's step, uniform in [low, high]; all tensors are (S,)."""
    word, *_ = philox4x32(0, 0, step, RANDOM_SIGMA + 256 * teacher_id, seed)
    return low + (high - low) * uniform23(word)


def value_and_grad(tensors: Tensors, options: Options) -> Result:
    """Return the loss, (S,) or (S, N) for "none", and its gradient (S, N, C).

    ``grad_scale`` multiplies the gradient before it is rounded to ``grad_dtype``; with None for
    ``grad_dtype`` no gradient is computed. Every version of the op has this signature.
    """
    student, teacher, alpha, sigma, sigma_high, seed, step, index, grad_scale = tensors
    shared, perturb_student, reduction, grad_dtype, teacher_id = options
    _, samples, classes = student.shape
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    rows = torch.arange(samples, device=student.device) if index is None else index
    if sigma_high is not None:
        sigma = draw_sigma(sigma, sigma_high, seed, step, teacher_id=teacher_id)
    mask = selected_rows(alpha, seed, step, rows, teacher_id=teacher_id)
    xi = draw_xi(
        sigma, seed, step, rows, classes, shared=shared, teacher_id=teacher_id, dtype=dtype
    )
    factor = 1.0 + torch.where(mask[..., None], xi, 0.0)

    student, teacher = student.to(dtype), teacher.to(dtype)
    residual = factor * student - teacher if perturb_student else student - factor * teacher
    loss = 0.5 * residual.square().sum(-1)
    weight = 1.0
    if reduction != "none":
        # No samples: the sum is 0, and so is the loss.
        if reduction == "batchmean":
            weight = 1.0 / max(samples, 1)
        elif reduction == "mean":
            weight = 2.0 / max(samples * classes, 1)
        loss = loss.sum(-1) * weight
    if grad_dtype is None:
        return loss, None
    grad = residual * factor if perturb_student else residual
    grad = grad * (weight if grad_scale is None else grad_scale * weight)
    return loss, grad.to(grad_dtype).contiguous()
