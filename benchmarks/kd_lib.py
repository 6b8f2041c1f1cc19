"""KD_Lib 0.0.32's own NoisyTeacher; `pip install --no-deps kd-lib==0.0.32` installs it.

Importing it takes packages that NoisyTeacher never calls: what is missing of them is stood in for.
It does another thing than the paper: one coin a batch, tempered probabilities and labels in the loss,
and a backward pass through the teacher too, which it leaves out of no_grad.
"""

import contextlib
import copy
import importlib
import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch.utils.data import DataLoader, TensorDataset
from ways import ALPHA, LR, Epoch, Work, data_loader

from fastnt.bench.cases import SIGMA

NEVER_CALLED = (
    "transformers",
    "torchtext",
    "torchtext.legacy",
    "torchvision",
    "pandas",
    "tqdm",
    "PIL",
    "torch.utils.tensorboard",
)


def noisy_teacher() -> Any:
    """Import KD_Lib's class.

    Raises:
        ImportError: it is not installed.
    """
    stand_ins: dict[str, Any] = {}
    for name in NEVER_CALLED:
        try:
            importlib.import_module(name)
        except ImportError:
            stand_ins[name] = MagicMock()
    sys.modules.update(stand_ins)
    try:
        from KD_Lib.KD import NoisyTeacher
    finally:
        for name in stand_ins:  # nobody else shall take them for what they stand for
            del sys.modules[name]
    return NoisyTeacher


def kd_lib(work: Work) -> Epoch:
    """KD_Lib's train_student for an epoch; its validation after it sees 8 images."""
    student = copy.deepcopy(work.student)
    distiller = noisy_teacher()(
        copy.deepcopy(work.teacher),
        student,
        data_loader(work),
        DataLoader(TensorDataset(torch.zeros(8, 3, 32, 32), work.labels[:8])),
        None,
        torch.optim.Adam(student.parameters(), lr=LR),
        alpha=ALPHA,
        noise_variance=SIGMA**2,
    )

    def epoch() -> float:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            path = str(Path(folder) / "student.pt")
            begin = time.perf_counter()
            distiller.train_student(1, plot_losses=False, save_model=False, save_model_pth=path)
            return len(work.images) / (time.perf_counter() - begin)

    return epoch
