"""What a network computes, tried on fixed images: kept beside its weights, it shows whether code changed.

Weights and the code of its classes do not tell all that a network computes: a constant of a module, a
function that it imports or the rate of a dropout may have changed since they were saved. Outputs are
compared and not hashed, since another machine rounds differently.
"""

import copy
import functools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fastnt.errors import UserError
from fastnt.kernels.philox.eager import philox4x32

IMAGES = 4
# Of the outputs' root mean square. Rounding in another order differs by some 1e-6.
TOLERANCE = 1e-3
EVAL, TRAIN = PROBES = ("probe.eval", "probe.train")


class OtherNetwork(UserError):
    """A network does not compute what it did when its weights were saved."""


def probe(
    model: nn.Module, shape: tuple[int, int, int], *, train: bool = False
) -> dict[str, Tensor]:
    """Return the outputs of a copy of ``model`` for fixed images, by name; of float32, on the CPU.

    A mode in which two passes differ, or fail on a CPU, is left out.

    Args:
        model: raw uint8 images (N, H, W, C) to logits (N, classes); it stays as it is.
        shape: one image, (H, W, C).
        train: also in training mode, where dropout drops the same units in each pass.
    """
    images = _images(shape)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _float32():
            copied = copy.deepcopy(model).cpu().eval()
            torch.manual_seed(0)
            # One copy and one stream of random numbers: state and draws in eval mode show.
            passes = {EVAL: [copied(images).float() for _ in range(2)]}
            if train:
                passes[TRAIN] = [_training_pass(model, images) for _ in range(2)]
    except Exception:  # whatever a user's network raises where it does not run
        return {}
    return {name: one for name, (one, other) in passes.items() if _close(one, other)}


def _training_pass(model: nn.Module, images: Tensor) -> Tensor:
    torch.manual_seed(0)
    logits: Tensor = copy.deepcopy(model).cpu().train()(images)
    return logits.float()


def differs(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> bool:
    """Tell whether another network gave the outputs ``before``, as far as there are some."""
    names = before.keys() & PROBES
    return not all(name in now and _close(before[name], now[name]) for name in names)


def _close(before: Tensor, now: Tensor) -> bool:
    if before.shape != now.shape:
        return False
    difference, size = ((x.double().square().mean().sqrt()) for x in (now - before, before))
    return bool(difference <= TOLERANCE * size)  # not so where it is NaN


@contextmanager
def _float32() -> Iterator[None]:
    """Compute in float32 throughout, whatever a program allows for its speed."""
    operations = [getattr(torch.backends.mkldnn, name) for name in ("matmul", "conv", "rnn")]
    allowed = [operation.fp32_precision for operation in operations]
    try:
        for operation in operations:
            operation.fp32_precision = "ieee"
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        for operation, precision in zip(operations, allowed, strict=True):
            operation.fp32_precision = precision


@functools.lru_cache(maxsize=8)
def _images(shape: tuple[int, int, int]) -> Tensor:
    """Noise (4, H, W, C), uint8, the same everywhere and for good; each image half as bright."""
    counter = torch.arange(IMAGES * math.prod(shape))
    word, *_ = philox4x32(counter, 0, 0, 0, torch.zeros((), dtype=torch.int64))
    noise = (word >> 24).reshape(IMAGES, *shape)
    return (noise >> torch.arange(IMAGES).reshape(-1, 1, 1, 1)).to(torch.uint8)
