"""Probe a network: compute its outputs for fixed images, and compare them with those saved before.

Weights and the code of its classes do not decide all that a network computes: a constant of a module, a
function that it imports, or the rate of a dropout may have changed since the weights were saved. The
outputs are compared and not hashed, since another machine rounds differently.
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
# Relative to the outputs' root mean square. Another order of rounding changes about 1e-6.
TOLERANCE = 1e-3
EVAL, TRAIN = PROBES = ("probe.eval", "probe.train")


class OtherNetwork(UserError):
    """A network computes something else than when its weights were saved."""


def probe(
    model: nn.Module, shape: tuple[int, int, int], *, train: bool = False
) -> dict[str, Tensor]:
    """Return the float32 outputs of a copy of ``model`` for fixed images, on the CPU, by mode.

    A mode in which two passes differ, or in which a pass fails on a CPU, is left out.

    Args:
        model: from raw uint8 images (N, H, W, C) to logits (N, classes); it is not changed.
        shape: one image, (H, W, C).
        train: also probe training mode, under a fixed seed, so that dropout drops the same units.
    """
    try:
        images = _images(shape)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _float32():
            copied = copy.deepcopy(model).cpu().eval()
            torch.manual_seed(0)
            # Both passes use one copy and one random stream, so that hidden state makes them differ.
            passes = {EVAL: [copied(images).float() for _ in range(2)]}
            if train:
                passes[TRAIN] = [_training_pass(model, images) for _ in range(2)]
    except Exception:  # a user's network may raise anything
        return {}
    return {name: one for name, (one, other) in passes.items() if _close(one, other)}


def _training_pass(model: nn.Module, images: Tensor) -> Tensor:
    torch.manual_seed(0)
    logits: Tensor = copy.deepcopy(model).cpu().train()(images)
    return logits.float()


def differs(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> bool:
    """Tell whether the outputs ``before`` and ``now`` come from different networks.

    All modes of ``before`` are compared; one that ``now`` lacks counts as different.
    """
    names = before.keys() & PROBES
    return not all(name in now and _close(before[name], now[name]) for name in names)


def _close(before: Tensor, now: Tensor) -> bool:
    if (before.shape, before.dtype) != (now.shape, now.dtype):
        return False
    difference, size = ((x.double().square().mean().sqrt()) for x in (now - before, before))
    return bool(difference <= TOLERANCE * size)  # False if it is NaN


@contextmanager
def _float32() -> Iterator[None]:
    """Compute in full float32 during the block, whatever the program allows elsewhere."""
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
    """Return fixed random images (4, H, W, C) uint8; each is half as bright as the one before."""
    counter = torch.arange(IMAGES * math.prod(shape), device="cpu")
    word, *_ = philox4x32(counter, 0, 0, 0, torch.zeros((), dtype=torch.int64, device="cpu"))
    noise = (word >> 24).reshape(IMAGES, *shape)
    return (noise >> torch.arange(IMAGES, device="cpu").reshape(-1, 1, 1, 1)).to(torch.uint8)
