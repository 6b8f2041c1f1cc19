"""What the noise costs in other people's loops: `make examples`, then `python benchmarks/noise_cost.py`.

A step's time, with the data, in each library's own training loop: with the loss that it has, with the
paper's noise written in PyTorch, and with fastnt's. One student for all, on the CPU. The losses take
turns, so that what disturbs the machine disturbs them all; medians over all steps are shown.

Each loop runs in the environment that `make examples` built for it.
"""

import contextlib
import io
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import fastnt
from fastnt.bench.run import measure_machine
from fastnt.networks import build_network

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, STEPS, BATCH, CLASSES, THREADS = 7, 40, 64, 10, 1
ALPHA, SIGMA = 0.5, 0.6
Loss = Callable[[Tensor, Tensor], Tensor]


def by_hand(student: Tensor, teacher: Tensor) -> Tensor:
    """The paper's noise in plain PyTorch."""
    chosen = torch.rand(len(teacher), 1) < ALPHA
    noisy = torch.where(chosen, (1 + SIGMA * torch.randn_like(teacher)) * teacher, teacher)
    return 0.5 * (student - noisy).square().sum(1).mean()


LOSSES: dict[str, Loss | None] = {
    "theirs": None,
    "by hand": by_hand,
    "fastnt": fastnt.NoisyL2Loss(ALPHA, SIGMA),
}


class Stamps:
    """Writes down when the loss was called: from call to call is a step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        def stamped(*arguments: Any, **options: Any) -> Any:
            self.times.append(time.perf_counter())
            return loss(*arguments, **options)

        return stamped

    def seconds(self) -> list[float]:
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


def student() -> nn.Module:
    torch.manual_seed(0)
    return build_network("mnist-student", (1, 28, 28), CLASSES)


def data() -> TensorDataset:
    """Images, the teacher's logits and labels."""
    torch.manual_seed(1)
    rows = STEPS * BATCH
    logits = 3 * torch.randn(rows, CLASSES)
    return TensorDataset(torch.rand(rows, 1, 28, 28), logits, logits.argmax(1))


def hf_trainer(loss: Loss | None, stamps: Stamps) -> None:
    """It has no distillation loss of its own: F.mse_loss."""
    from transformers import Trainer, TrainingArguments

    measure = stamps(loss or F.mse_loss)

    class Rows(Dataset):
        def __init__(self) -> None:
            self.tensors = data().tensors

        def __len__(self) -> int:
            return len(self.tensors[0])

        def __getitem__(self, row: int) -> dict[str, Tensor]:
            return {"pixel_values": self.tensors[0][row], "labels": self.tensors[1][row]}

    class Distiller(Trainer):
        def compute_loss(self, model: nn.Module, inputs: Any, *_: Any, **__: Any) -> Any:
            return measure(model(inputs["pixel_values"]), inputs["labels"])

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            max_steps=STEPS,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        Distiller(model=student(), args=arguments, train_dataset=Rows()).train()


def lightning_trainer(loss: Loss | None, stamps: Stamps) -> None:
    """It has no distillation loss of its own: F.mse_loss."""
    import lightning

    measure = stamps(loss or F.mse_loss)

    class Distiller(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.student = student()

        def training_step(self, batch: Any, _: int) -> Any:
            return measure(self.student(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Distiller(), DataLoader(data(), BATCH))


class Table(nn.Module):
    """A teacher whose logits cost nothing: the images' first values, spread."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        return 6 * images.flatten(1)[:, :CLASSES] - 3


def torchdistill_yaml(loss: Loss | None, stamps: Stamps) -> None:
    """Its KDLoss: Hinton's, with labels."""
    import torchdistill_yaml as example
    import yaml
    from torch.utils.data import SequentialSampler

    config = yaml.safe_load(example.CONFIG)
    config["train_data_loader"] |= {
        "sampler": {"class_or_func": SequentialSampler},
        "kwargs": {"batch_size": BATCH, "num_workers": 0},
    }
    config["optimizer"] = {"key": "Adam", "kwargs": {"lr": 1e-3}}
    term = config["criterion"]["kwargs"]["sub_terms"]["noisy_l2"]
    if loss is None:
        term["criterion"] = {
            "key": "KDLoss",
            "kwargs": {
                "student_module_path": ".",
                "student_module_io": "output",
                "teacher_module_path": ".",
                "teacher_module_io": "output",
                "temperature": 4.0,
                "alpha": 0.9,
                "reduction": "batchmean",
            },
        }
        del term["criterion_wrapper"]
    elif loss is by_hand:
        example.register_low_level_loss(ByHand)
        term["criterion"] = {"key": "ByHand", "kwargs": {}}
    images, _, labels = data().tensors
    rows, cpu = TensorDataset(images, labels), torch.device("cpu")
    box = example.DistillationBox(Table(), student(), {"train": rows}, config, cpu, None, False, 1)
    box.criterion = stamps(box.criterion)
    box.pre_epoch_process(epoch=0)
    for batch, targets, more in box.train_data_loader:
        box.post_forward_process(box.forward_process(batch, targets, more))


class ByHand(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return by_hand(student, teacher)


def kd_lib_distiller(loss: Loss | None, stamps: Stamps) -> None:
    """Its VanillaKD: Hinton's, with labels."""
    import kd_lib_distiller as example

    with example.standing_in("transformers", "torchtext", "torchvision", "pandas"):
        from KD_Lib.KD import VanillaKD

    network = student()
    images, _, labels = data().tensors
    train = DataLoader(TensorDataset(images, labels), BATCH)
    test = DataLoader(TensorDataset(images[:8], labels[:8]), 8)
    optimizer = torch.optim.Adam(network.parameters())
    distiller = VanillaKD(Table().requires_grad_(False), network, train, test, None, optimizer)
    calculate = distiller.calculate_kd_loss
    if loss is not None:
        calculate = lambda student, teacher, labels: loss(student, teacher)  # noqa: E731
    distiller.calculate_kd_loss = stamps(calculate)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = str(Path(folder) / "models" / "student.pt")
        distiller.train_student(1, plot_losses=False, save_model=False, save_model_pth=path)


LOOPS = (hf_trainer, lightning_trainer, torchdistill_yaml, kd_lib_distiller)


def measure(name: str) -> dict[str, Any]:
    """Run one loop with each loss in turn; return the median milliseconds of its steps."""
    (loop,) = (each for each in LOOPS if each.__name__ == name)
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(THREADS)
    seconds: dict[str, list[float]] = {loss: [] for loss in LOSSES}
    for turn in range(ROUNDS + 1):
        for label, loss in LOSSES.items():
            stamps = Stamps()
            loop(loss, stamps)
            if turn:  # the first is to warm up
                seconds[label] += stamps.seconds()
    return {
        "loop": name,
        "steps": len(seconds["fastnt"]),
        "milliseconds": {label: 1e3 * statistics.median(s) for label, s in seconds.items()},
        "least": {label: 1e3 * min(s) for label, s in seconds.items()},
    }


def main() -> None:
    if len(sys.argv) > 1:
        sys.path.insert(0, str(ROOT / "examples"))
        print(json.dumps(measure(sys.argv[1])))
        return
    rows = []
    for loop in LOOPS:
        python = ROOT / "build" / "examples" / loop.__name__ / "bin" / "python"
        command = [str(python), __file__, loop.__name__]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        times = ", ".join(f"{loss} {ms:.2f} ms" for loss, ms in row["milliseconds"].items())
        print(f"{row['loop']}: {times}", flush=True)
    setting = {"student": "mnist-student", "batch": BATCH, "classes": CLASSES, "threads": THREADS}
    machine = measure_machine(torch.device("cpu"))
    result = {"machine": machine, "setting": setting, "rows": rows}
    path = Path("noise-cost.json")
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
