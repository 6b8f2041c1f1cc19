"""fastnt's loss in a distiller of KD_Lib 0.0.32; lift `NoisyL2` from here.

    pip install --no-deps kd-lib==0.0.32
    python examples/kd_lib_distiller.py

It ends with a check: KD_Lib's training gives what the same training by hand gives, bit for bit.

KD_Lib imports packages that its distillers never call, two of them in versions that are gone: stand-ins
serve. It knows no accumulation of gradients and no resuming, so there is no step to keep.
"""

import contextlib
import copy
import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from stand_ins import standing_in
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fastnt

with standing_in("transformers", "torchtext", "torchvision", "pandas"):
    from KD_Lib.KD.common import BaseClass


class NoisyL2(BaseClass):  # type: ignore[misc]
    """A distiller whose student regresses on the noisy teacher's logits."""

    def __init__(self, teacher: nn.Module, student: nn.Module, *arguments: Any) -> None:
        # The loss of every other distiller gets softmax outputs; this one needs the logits.
        criterion = fastnt.NoisyL2Loss(alpha=0.5, sigma=0.6)
        super().__init__(teacher, student, *arguments, loss_fn=criterion)
        teacher.requires_grad_(False)  # KD_Lib runs it outside of no_grad

    def calculate_kd_loss(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Any:
        return self.loss_fn(student, teacher)


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    return teacher, student


def main() -> None:
    teacher, student = networks()
    by_hand = copy.deepcopy(student)
    images, labels = torch.rand(64, 1, 8, 8), torch.arange(64) % 10
    loader = DataLoader(TensorDataset(images, labels), 16)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    distiller = NoisyL2(teacher, student, loader, loader, None, optimizer)
    torch.manual_seed(1)  # governs the noise
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "models" / "student.pt"
        distiller.train_student(1, plot_losses=False, save_model=False, save_model_pth=str(path))

    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.05)
    torch.manual_seed(1)
    for batch, _ in loader:
        with torch.no_grad():
            logits = teacher(batch)
        optimizer.zero_grad()
        fastnt.noisy_l2_loss(by_hand(batch), logits, alpha=0.5, sigma=0.6).backward()
        optimizer.step()
    for one, other in zip(student.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(one, other)
    distiller.loss_fn.eval()
    distance = by_hand(images) - teacher(images)
    clean = 0.5 * distance.square().sum(1).mean()
    torch.testing.assert_close(
        distiller.calculate_kd_loss(by_hand(images), teacher(images), labels), clean
    )
    print("KD_Lib's training is the one by hand; in eval() the loss is clean")


if __name__ == "__main__":
    main()
