"""Several teachers as one: their combined logits."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastnt.config import Combine
from fastnt.data.preprocess import View
from fastnt.training.model import Model


def combine_logits(logits: Sequence[Tensor], combine: Combine) -> Tensor:
    """Return the elementwise mean of several teachers' logits, in their shape.

    "geometric" is the paper's geometric mean (section 5.4). It exists where all logits have the same
    sign, which the result then has too; it is 0 if one of them is 0. Where signs differ, the result is
    the arithmetic mean. One teacher's logits are returned as they are.
    """
    if len(logits) == 1:
        return logits[0]
    stacked = torch.stack(list(logits))
    mean = stacked.mean(0)
    if combine == "mean":
        return mean
    geometric = stacked.abs().log().mean(0).exp().copysign(mean)
    return torch.where(_agree(stacked), geometric, mean)


def sign_agreement(logits: Sequence[Tensor]) -> float:
    """Return the fraction of logits that have the same sign for all teachers; 1 if there are none."""
    agree = _agree(torch.stack(list(logits)))
    return agree.double().mean().item() if agree.numel() else 1.0


def _agree(stacked: Tensor) -> Tensor:
    return (stacked >= 0).all(0) | (stacked <= 0).all(0)


class Ensemble(nn.Module):
    """A module that returns the combined logits of several teachers."""

    def __init__(self, teachers: Sequence[Model], combine: Combine) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)
        self.combine, self.classes = combine, teachers[0].classes

    def forward(self, images: Tensor, view: View | None = None) -> Tensor:
        """Return the combined logits (B, classes), float32, of raw images as ``view`` shows them."""
        logits = [teacher(images, view).float() for teacher in self.teachers]
        return combine_logits(logits, self.combine)

    @property
    def parameter_count(self) -> int:
        """Parameters of all teachers."""
        return sum(model.parameter_count for model in self._models())

    @property
    def multiply_count(self) -> int | None:
        """Multiplications of one image's pass through all teachers; None if torch cannot count one's."""
        counts = [model.multiply_count for model in self._models()]
        return sum(count for count in counts if count) if None not in counts else None

    def _models(self) -> list[Model]:
        return [model for model in self.teachers if isinstance(model, Model)]
