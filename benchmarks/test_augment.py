"""Crop, mirror and normalise: ``pytest benchmarks/test_augment.py --benchmark-only``.

A batch of 512 images of 32 x 32 x 3, pad 4, mirror, mean and deviation of each channel, on one thread:
fastnt's best version for the device, the eager definition in PyTorch (the same bits), and the conversion
alone, which moves the same bytes into memory that is there already.
"""

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from fastnt.kernels.augment import augment

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPE = (512, 32, 32, 3)


def _rivals(dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    generator = torch.Generator(DEVICE).manual_seed(0)
    images = torch.randint(256, SHAPE, dtype=torch.uint8, device=DEVICE, generator=generator)
    index = torch.randperm(SHAPE[0], device=DEVICE, generator=generator)
    mean, std = torch.full((2, 3), 0.25, device=DEVICE)
    out = torch.empty(SHAPE, dtype=dtype, device=DEVICE)

    def call(impl: str) -> Tensor:
        return augment(
            images,
            index=index,
            seed=1,
            epoch=2,
            pad=4,
            mirror=True,
            mean=mean,
            std=std,
            dtype=dtype,
            impl=impl,
        )

    return {
        "fastnt": lambda: call("auto"),
        "eager": lambda: call("eager"),
        "conversion": lambda: out.copy_(images),
    }


@pytest.mark.parametrize("rival", ["fastnt", "eager", "conversion"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_augment(benchmark: BenchmarkFixture, dtype: torch.dtype, rival: str) -> None:
    call = _rivals(dtype)[rival]
    benchmark.group = str(dtype)

    def run() -> None:
        call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark(run)
