"""fastnt's loss in the Hugging Face Trainer, on images; lift `Distiller` and `Rows` from here.

    pip install transformers accelerate
    python examples/hf_trainer.py

It ends with checks: four micro-batches of 4 give what one batch of 16 gives, and so do two processes; a
training that is resumed ends in the same bits as one that was never stopped; evaluation is clean.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

import fastnt


class Rows(torch.utils.data.Dataset):
    """Images and the teacher's logits; each sample brings its own row as ``index``."""

    def __init__(self, images: Tensor, teacher_logits: Tensor) -> None:
        self.images, self.teacher_logits = images, teacher_logits

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {
            "pixel_values": self.images[row],
            "labels": self.teacher_logits[row],
            "index": row,
        }


class Distiller(Trainer):
    """A Trainer that minimises the L2 distance to a noisy teacher's logits."""

    # The model's forward takes **kwargs, and the Trainer would leave the loss undivided for it.
    loss_is_scaled_for_ga = False

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any
    ) -> Any:
        outputs = model(pixel_values=inputs["pixel_values"])
        loss = fastnt.noisy_l2_loss(
            outputs.logits,
            inputs["labels"],
            # The Trainer has no criterion to switch between train and eval.
            alpha=0.5 if model.training else 0.0,
            sigma=0.6,
            seed=0,
            step=self.state.global_step,  # of the optimizer: the same for its micro-batches
            index=inputs["index"],  # the noise belongs to the sample, not to its place
        )
        return (loss, outputs) if return_outputs else loss


def train(folder: Path, data: Rows, resume: bool = False, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    config = ResNetConfig(
        num_channels=3,
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        num_labels=10,
    )
    student = ResNetForImageClassification(config)
    for module in student.modules():  # batch statistics would depend on the micro-batches
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
            module.train = lambda mode=True: None  # type: ignore[assignment,method-assign]
    given: dict[str, Any] = {
        "per_device_train_batch_size": 16,
        "max_steps": 4,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0,
        "save_strategy": "steps",
        "save_steps": 2,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,  # else "index" is dropped without a word
    }
    arguments = TrainingArguments(str(folder), **given | options)
    trainer = Distiller(model=student, args=arguments, train_dataset=data, eval_dataset=data)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2") if resume else None)
    if "RANK" not in os.environ:
        _check_evaluation(trainer, student, data)
    return {name: value.clone() for name, value in student.state_dict().items()}


def _check_evaluation(trainer: Trainer, student: nn.Module, data: Rows) -> None:
    """The loss of the evaluation is the clean L2 loss."""
    with torch.no_grad():
        distance = student(pixel_values=data.images).logits - data.teacher_logits
    clean = 0.5 * distance.square().sum(1).mean().item()
    assert abs(trainer.evaluate()["eval_loss"] - clean) < 1e-4 * clean


def main() -> None:
    torch.manual_seed(1)
    data = Rows(torch.rand(64, 3, 32, 32), 3 * torch.randn(64, 10))
    if "RANK" in os.environ:  # one of two processes, which share each batch of 16
        folder = Path(sys.argv[1])
        weights = train(folder, data, per_device_train_batch_size=8, ddp_backend="gloo")
        if os.environ["RANK"] == "0":
            torch.save(weights, folder / "weights.pt")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole = train(folder / "whole", data)
        parts = train(
            folder / "parts", data, per_device_train_batch_size=4, gradient_accumulation_steps=4
        )
        resumed = train(folder / "whole", data, resume=True)
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        subprocess.run([*command, "--standalone", __file__, str(folder)], check=True)
        together = torch.load(folder / "weights.pt", weights_only=True)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(resumed[name], value), name
    print(
        "accumulation and two processes equal one batch; resumed in the same bits; evaluation is clean"
    )


if __name__ == "__main__":
    main()
