"""fastnt's loss in a LightningModule; lift `Distiller` from here.

    pip install lightning
    python examples/lightning_trainer.py

It ends with checks: accumulation and two processes equal one batch, a resumed training ends in the same
bits, and `test` measures the clean loss.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

import fastnt

Batch = tuple[Tensor, Tensor]  # images, and each one's row in the training list


class Distiller(lightning.LightningModule):
    """A student that learns from a noisy teacher."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher.requires_grad_(False).eval()
        # A submodule: noisy in train(), the clean L2 loss in eval(), moved with the rest.
        self.criterion = fastnt.NoisyL2Loss(alpha=0.5, sigma=0.6, seed=0)

    def train(self, mode: bool = True) -> "Distiller":
        super().train(mode)
        self.teacher.eval()  # Lightning puts the whole module into train(), and so its dropout
        return self

    def _loss(self, batch: Batch) -> Tensor:
        images, index = batch
        # The trainer's step, not a count of calls: under accumulation several calls are one step.
        step = self.trainer.global_step
        return self.criterion(self.student(images), self.teacher(images), index, step=step)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        return self._loss(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test_loss", self._loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.student.parameters(), lr=0.05)


def _networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
        nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10)
        ),
    )


def train(
    data: Any, batch: int, accumulate: int, epochs: int, folder: Path, resume: Path | None = None
) -> tuple[Distiller, Any]:
    module = Distiller(*_networks())
    loader = torch.utils.data.DataLoader(data, batch)
    together: dict[str, Any] = {}
    if "RANK" in os.environ:  # each process has its own half of every batch
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        part = batch // count
        rows = [rows[rank * part :][:part] for rows in torch.arange(len(data)).split(batch)]
        loader = torch.utils.data.DataLoader(data, batch_sampler=[r.tolist() for r in rows])
        together = {"strategy": "ddp", "devices": count, "use_distributed_sampler": False}
    trainer = lightning.Trainer(
        accelerator="cpu",
        **together,
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader, ckpt_path=resume)
    return module, trainer


def main() -> None:
    torch.manual_seed(1)
    images = torch.rand(64, 1, 8, 8)
    data = torch.utils.data.TensorDataset(images, torch.arange(64))
    if "RANK" in os.environ:  # one of two processes
        folder = Path(sys.argv[1])
        module, _ = train(data, 16, 1, 4, folder)
        if os.environ["RANK"] == "0":
            torch.save(module.state_dict(), folder / "weights.pt")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole, trainer = train(data, 16, 1, 4, folder)
        parts, _ = train(data, 4, 4, 4, folder)
        _, half = train(data, 16, 1, 2, folder)
        half.save_checkpoint(folder / "half.ckpt")
        resumed, _ = train(data, 16, 1, 4, folder, folder / "half.ckpt")
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        subprocess.run([*command, "--standalone", __file__, str(folder)], check=True)
        together = torch.load(folder / "weights.pt", weights_only=True)
        (tested,) = trainer.test(whole, torch.utils.data.DataLoader(data, 64), verbose=False)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(resumed.state_dict()[name], value), name
    whole.eval()
    with torch.no_grad():
        distance = whole.student(images) - whole.teacher(images)
    clean = 0.5 * distance.square().sum(1).mean()
    torch.testing.assert_close(torch.tensor(tested["test_loss"]), clean)
    assert whole.criterion.step == 0  # nothing was counted
    print("accumulation and two processes equal one batch; resumed in the same bits; test is clean")


if __name__ == "__main__":
    main()
