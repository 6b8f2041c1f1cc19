"""The loss in plain PyTorch, in the forms that users write; the fastest form is the rival.

A form makes the noisy logits of Algorithm 1, with torch's own random numbers. The loss is then
``F.mse_loss``, which is `noisy_l2_loss` with ``reduction="mean"``. Two-byte logits are computed in
float32: on a CPU no form is quicker without, and their noise would be rounded.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnt.bench.cases import SIGMA, Case, Inputs, call_in_mode
from fastnt.bench.measure import Call, time_side_by_side

Noisy = Callable[[Tensor, float], Tensor]  # (B, C) float32 logits and alpha to noisy logits
TURNS = 5  # each form is timed so often before the fastest is chosen


def where(teacher: Tensor, alpha: float) -> Tensor:
    """Return noisy logits as the paper writes it: rows that are not selected keep theirs."""
    selected = torch.rand(len(teacher), 1, device=teacher.device) < alpha
    return torch.where(selected, (1 + SIGMA * torch.randn_like(teacher)) * teacher, teacher)


def product(teacher: Tensor, alpha: float) -> Tensor:
    """Return noisy logits in one line: rows that are not selected have noise of 0."""
    keep = torch.rand(len(teacher), 1, device=teacher.device) < alpha
    return teacher * (1 + keep * torch.randn_like(teacher) * SIGMA)


def in_place(teacher: Tensor, alpha: float) -> Tensor:
    """Return noisy logits, computed in the memory of the normals."""
    return torch.randn_like(teacher).mul_(_sigma(teacher, alpha)).add_(1).mul_(teacher)


def addcmul(teacher: Tensor, alpha: float) -> Tensor:
    """Return noisy logits by the operation that multiplies and adds at once."""
    return torch.addcmul(teacher, teacher, torch.randn_like(teacher).mul_(_sigma(teacher, alpha)))


def selected_rows(teacher: Tensor, alpha: float) -> Tensor:
    """Return noisy logits, with normals drawn for the selected rows alone."""
    rows = (torch.rand(len(teacher), device=teacher.device) < alpha).nonzero()[:, 0]
    part = teacher[rows]
    noisy = torch.randn_like(part).mul_(SIGMA).add_(1).mul_(part)
    return teacher.index_copy(0, rows, noisy)


def _sigma(teacher: Tensor, alpha: float) -> Tensor | float:
    """Return the standard deviation of each row's noise, (B, 1), or of all rows."""
    if alpha == 1:
        return SIGMA
    return teacher.new_empty(len(teacher), 1).bernoulli_(alpha).mul_(SIGMA)


FORMS: dict[str, Noisy] = {
    form.__name__: form for form in (where, product, in_place, addcmul, selected_rows)
}


def loss(student: Tensor, teacher: Tensor, alpha: float, form: Noisy) -> Tensor:
    """Return the loss of one form."""
    return F.mse_loss(student.float(), form(teacher.float(), alpha))


def value_and_grad(
    student: Tensor, teacher: Tensor, alpha: float, form: Noisy
) -> tuple[Tensor, Tensor]:
    """Return the loss of one form and its gradient, written by hand: quicker than autograd."""
    difference = student.float() - form(teacher.float(), alpha)
    flat = difference.view(-1)
    # On a GPU, dot takes fewer than 2^31 elements.
    square = flat.dot(flat) if flat.numel() < 2**31 else torch.linalg.vector_norm(flat).square()
    value = square / flat.numel()
    return value, difference.mul_(2 / flat.numel()).to(student.dtype)


class FastestPlain:
    """A call of the form that is fastest for a case on this machine; the first call finds it."""

    def __init__(self, case: Case, inputs: Inputs) -> None:
        self.form: str | None = None
        self._device = inputs.student.device
        self._calls = {name: self._call(form, case, inputs) for name, form in FORMS.items()}

    def __call__(self) -> object:
        """Do everything of the case's mode.

        Raises:
            torch.OutOfMemoryError: there is too little memory for each form.
        """
        if self.form is None:
            timings = time_side_by_side(self._that_fit(), self._device, rounds=TURNS)
            self.form = min(timings, key=lambda name: timings[name].least)
        return self._calls[self.form]()

    def _that_fit(self) -> dict[str, Call]:
        """Call each form once, and return those for which there is memory."""
        found = {}
        for name, call in self._calls.items():
            try:
                call()
                found[name] = call
            except torch.OutOfMemoryError as error:
                lacking = error.with_traceback(None)  # it would keep the form's tensors
        if not found:
            raise lacking
        return found

    @staticmethod
    def _call(form: Noisy, case: Case, inputs: Inputs) -> Call:
        z, alpha = inputs.teacher, case.alpha
        return lambda: call_in_mode(
            case.mode,
            inputs.student,
            lambda g: loss(g, z, alpha, form),
            lambda g: value_and_grad(g, z, alpha, form),
        )
