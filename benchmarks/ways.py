"""The ways to train a student that are compared: each an epoch of the same networks on the same images.

All of them train with Adam in batches of 256 on images less the mean of each pixel, towards the logits
of the same teacher, with the paper's noise (KD_Lib: with its own, and its own loss).
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fastnt.bench import plain as plain_loss
from fastnt.bench.cases import SIGMA
from fastnt.config import Recipe
from fastnt.data.loaders import make_loader
from fastnt.data.preprocess import Preprocess
from fastnt.data.split import Split, write_split
from fastnt.networks import build_network
from fastnt.training.compute import Compute, Precision, choose_precision
from fastnt.training.display import Silent
from fastnt.training.evaluation import Evaluation
from fastnt.training.model import Model
from fastnt.training.objectives import noisy_l2_objective
from fastnt.training.step import TrainStep
from fastnt.training.targets import stored_targets
from fastnt.training.trainer import Schedule, Trainer

SHAPE, CLASSES, LR, ALPHA = (32, 32, 3), 10, 1e-3, 0.5
CPU = torch.device("cpu")
Epoch = Callable[[], float]  # trains for an epoch and returns its images/s


@dataclass(frozen=True)
class Work:
    """What there is to do."""

    images: Tensor  # (N, 32, 32, 3) uint8
    labels: Tensor  # (N,) int64
    mean: Tensor  # (32, 32, 3) float32, of the pixels in [0, 1]
    student: nn.Module  # (B, 3, 32, 32) floats to logits (B, 10); never trained itself
    teacher: nn.Module
    logits: Tensor  # (N, 10), the teacher's
    student_notation: str
    split: Split  # the same images as a .beton file
    batch: int

    def first(self, count: int) -> "Work":
        """The same with fewer images."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])


def make_work(folder: Path, count: int, batch: int, student: str, teacher: str) -> Work:
    """Draw random images and both networks, pass the images through the teacher once."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, count)
    names = tuple(map(str, range(CLASSES)))
    split = write_split(
        folder / "train.beton",
        dataset="random",
        official=False,
        classes=names,
        parts={"train": (images, labels)},
        source_sha256="",
    )
    torch.manual_seed(0)
    height, width, channels = SHAPE
    networks = [
        build_network(name, (channels, height, width), CLASSES) for name in (student, teacher)
    ]
    pixels = torch.from_numpy(images)
    mean = pixels.double().mean(0).div(255).float()
    with torch.inference_mode():
        parts = [networks[1].eval()(_normalise(part, mean)) for part in pixels.split(batch)]
    logits = torch.cat(parts).clone()
    targets = torch.from_numpy(labels)
    return Work(pixels, targets, mean, *networks, logits, student, split, batch)


def _normalise(images: Tensor, mean: Tensor) -> Tensor:
    """(B, H, W, C) uint8 to (B, C, H, W) float32; the memory stays as it is, channels last."""
    return images.float().div_(255).sub_(mean).permute(0, 3, 1, 2)


class Transformed(Dataset[tuple[Tensor, Tensor]]):
    """A TensorDataset whose images go one by one through a transform."""

    def __init__(self, data: TensorDataset, transform: Callable[[Tensor], Tensor]) -> None:
        self._data, self._transform = data, transform

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self._data[index]
        return self._transform(image), label


def data_loader(work: Work) -> "DataLoader[tuple[Tensor, Tensor]]":
    """The images as most would load them: one by one, in the main process."""

    def transform(image: Tensor) -> Tensor:
        return (image.float() / 255 - work.mean).permute(2, 0, 1)

    data = Transformed(TensorDataset(work.images, work.labels), transform)
    return DataLoader(data, work.batch, shuffle=True)


def plain(work: Work) -> Epoch:
    """Plain PyTorch: a DataLoader, the teacher under no_grad in each step, Adam, float32."""
    student = copy.deepcopy(work.student).train()
    optimizer = torch.optim.Adam(student.parameters(), lr=LR)
    loader = data_loader(work)

    def epoch() -> float:
        begin = time.perf_counter()
        for images, _ in loader:
            with torch.no_grad():
                targets = work.teacher(images)
            loss = plain_loss.loss(student(images), targets, ALPHA, plain_loss.product)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return len(work.images) / (time.perf_counter() - begin)

    return epoch


def by_hand(work: Work) -> Epoch:
    """The best loop by hand: stored logits, channels last, fused Adam, bf16 where the CPU has it."""
    autocast = choose_precision(CPU, amp=None).autocast
    student = copy.deepcopy(work.student).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(student.parameters(), lr=LR, fused=True)

    def epoch() -> float:
        begin = time.perf_counter()
        for rows in torch.randperm(len(work.images)).split(work.batch):
            images = _normalise(work.images[rows], work.mean)
            with autocast(CPU):
                logits = student(images)
            loss = plain_loss.loss(logits, work.logits[rows], ALPHA, plain_loss.addcmul)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return len(work.images) / (time.perf_counter() - begin)

    return epoch


def fastnt(work: Work, *, bf16: bool) -> tuple[Epoch, nn.Module]:
    """This package's own training; also its student's network, for who wants to watch it.

    The one place that knows the trainer.
    """
    preprocess = Preprocess("pixel_mean", SHAPE)
    preprocess.mean.copy_(work.mean)
    model = Model(work.student_notation, preprocess, CLASSES)
    recipe = Recipe("cifar10", "", work.student_notation, alpha=ALPHA, sigma=SIGMA)
    loader = make_loader(
        "resident",
        work.split,
        positions=np.arange(len(work.images)),
        batch_size=work.batch,
        order_seed=0,
        device=CPU,
    )
    step = TrainStep(
        model,
        noisy_l2_objective(stored_targets(work.logits), recipe, alpha=ALPHA),
        lambda batch, epoch: None,
        lr=LR,
        compute=Compute(CPU, Precision(torch.bfloat16 if bf16 else torch.float32)),
    )
    schedule = Schedule("noisy", epochs=10**6, lr=LR, lr_decay=1.0, batch_size=work.batch, seed=0)
    trainer = Trainer(step, loader, lambda: Evaluation(0, 0.0, torch.zeros(1)), schedule, Silent())
    records = trainer.train()
    return lambda: next(records).images_per_second, model.network
