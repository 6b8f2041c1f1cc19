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
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from fastnt.bench import plain as plain_loss
from fastnt.bench.cases import SIGMA
from fastnt.config import Recipe
from fastnt.data.beton import Images, Labels
from fastnt.data.prepare import Dataset
from fastnt.data.split import HELD_OUT, write_split
from fastnt.monitoring.display import Silent
from fastnt.monitoring.progress import EpochRecord
from fastnt.networks import build_network
from fastnt.training.compute import Compute, Precision, choose_precision
from fastnt.training.model import Model
from fastnt.training.pipeline import open_course, train_student
from fastnt.training.trainer import Trainer

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
    dataset: Dataset  # the same images as a .beton file, and a few to hold out and to test
    batch: int

    def first(self, count: int) -> "Work":
        """The same with fewer images."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])


def make_work(folder: Path, count: int, batch: int, student: str, teacher: str) -> Work:
    """Draw random images and both networks, pass the images through the teacher once."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, count)
    torch.manual_seed(0)
    height, width, channels = SHAPE
    networks = [
        build_network(name, (channels, height, width), CLASSES) for name in (student, teacher)
    ]
    pixels = torch.from_numpy(images)
    mean = pixels.double().mean(0).div(255).float()
    with torch.inference_mode():
        parts = [networks[1].eval()(normalise(part, mean)) for part in pixels.split(batch)]
    logits = torch.cat(parts).clone()
    dataset = _dataset(folder, images, labels)
    return Work(pixels, torch.from_numpy(labels), mean, *networks, logits, dataset, batch)


def _dataset(folder: Path, images: Images, labels: Labels) -> Dataset:
    """Write the images as the training split; the first eight are held out and tested again."""
    few = images[:8], labels[:8]
    train, test = (
        write_split(
            folder / f"{name}.beton",
            dataset="random",
            official=False,
            classes=[*map(str, range(CLASSES))],
            parts=parts,
            source_sha256="",
        )
        for name, parts in (
            ("train", {"train": (images, labels), HELD_OUT: few}),
            ("test", {"test": few}),
        )
    )
    return Dataset("random", False, train.classes, SHAPE, "", folder, train, test)


def normalise(images: Tensor, mean: Tensor) -> Tensor:
    """(B, H, W, C) uint8 to (B, C, H, W) float32; the memory stays as it is, channels last."""
    return images.float().div_(255).sub_(mean).permute(0, 3, 1, 2)


class Transformed(TorchDataset[tuple[Tensor, Tensor]]):
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
            images = normalise(work.images[rows], work.mean)
            with autocast(CPU):
                logits = student(images)
            loss = plain_loss.loss(logits, work.logits[rows], ALPHA, plain_loss.addcmul)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return len(work.images) / (time.perf_counter() - begin)

    return epoch


class Stepwise:
    """A keeper that trains an epoch each time its ``epoch`` is called, and not before."""

    def train(self, trainer: Trainer) -> list[EpochRecord]:
        """Begin the training."""
        self._records = trainer.train()
        return []

    def epoch(self) -> float:
        """Train for an epoch and return its images/s, without the evaluation after it."""
        return next(self._records).images_per_second

    def began(self, phase: str) -> bool:
        return False

    def finished(self, name: str, phase: str) -> Model | None:
        return None

    def keep(self, model: Model, name: str) -> None:
        pass


def fastnt(work: Work, *, bf16: bool) -> tuple[Epoch, nn.Module]:
    """This package's own training, and its student's network, whose calls can be watched."""
    compute = Compute(CPU, Precision(torch.bfloat16 if bf16 else torch.float32), loader="resident")
    recipe = Recipe(
        "cifar10",
        preprocess="pixel_mean",
        train_samples=len(work.images),
        batch_size=work.batch,
        alpha=ALPHA,
        sigma=SIGMA,
        epochs=10**6,
        lr=LR,
        lr_decay=1.0,
    )
    course = open_course(work.dataset, recipe, compute, Silent())
    teacher = Model(copy.deepcopy(work.teacher), course.preprocess, CLASSES)
    student = course.new_student(recipe, copy.deepcopy(work.student))
    keeper = Stepwise()
    train_student(course, course.teach([teacher]), student, recipe, keeper)
    return keeper.epoch, student.network
