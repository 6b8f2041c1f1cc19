import itertools
import subprocess
import sys

import pytest
import torch

from fastnt.kernels.augment import augment
from fastnt.kernels.native import MISSING, PRESENT

if not PRESENT:
    pytest.skip(MISSING, allow_module_level=True)
from fastnt import _native

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=_native.isas(), autouse=True)
def _isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield
    _native.set_isa(before)


def images_of(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def assert_same_bits(images, **given):
    ours, plain = (augment(images, impl=impl, **given) for impl in ("native", "eager"))
    assert torch.equal(ours, plain)
    assert ours.stride() == plain.stride()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [(9, 5, 7, 3), (9, 8, 8, 1), (3, 3, 1100, 3), (4, 6, 5, 4), (0, 4, 4, 3), (2, 1, 2, 1024)],
)
def test_every_bit_equals_eager(shape, dtype):
    images, rows, pixel = images_of(*shape), torch.randint(0, 2**32, shape[:1]), shape[1:]
    for pad, mirror, flip in itertools.product([0, 2, 11], [False, True], [False, True]):
        assert_same_bits(
            images,
            index=rows if pad else None,
            seed=2**64 - 3,
            epoch=torch.tensor(5),
            pad=pad,
            mirror=mirror,
            flipped=torch.rand(shape[0]) < 0.5 if flip else None,
            mean=torch.rand(pixel if mirror else pixel[2:]),
            std=torch.rand(pixel) + 0.1 if flip else None,
            dtype=dtype,
        )


def test_every_pixel_value_is_divided_exactly():
    for dtype in DTYPES:
        assert_same_bits(torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1), dtype=dtype)


def test_strided_images_are_read_in_place():
    images = images_of(8, 20, 14, 6)
    given = {"seed": 1, "pad": 3, "mirror": True, "mean": torch.rand(3)}
    for part in (
        images[::2, 1::2, :7, ::2],
        images[..., 3:],
        images[:, :3].permute(0, 2, 3, 1)[:, :10, :6, :3],
        images[:1].expand(5, -1, -1, -1)[..., :3],
    ):
        assert_same_bits(part, **given)
        rows = torch.arange(2 * len(part))[::2]
        assert_same_bits(part, index=rows, flipped=(rows % 4 == 0).repeat(2)[::2], **given)


def test_threads_share_the_images():
    images = images_of(750, 32, 32, 3)  # more than one thread would take
    expected = augment(images, pad=2, mirror=True, impl="native")
    torch.set_num_threads(2)
    assert torch.equal(augment(images, pad=2, mirror=True, impl="native"), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc counts the threads")
def test_as_many_threads_compute_as_torch_has():
    program = """
import os, torch
from fastnt.kernels.augment import augment
torch.set_num_threads(1)
images = torch.randint(256, (750, 32, 32, 3), dtype=torch.uint8)
torch.set_num_threads(3)
before = len(os.listdir("/proc/self/task"))
augment(images, pad=2, mirror=True, impl="native")
print(len(os.listdir("/proc/self/task")) - before)
"""
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2\n"


def test_auto_is_native_on_the_cpu_where_it_can_be():
    def operations(images):
        with torch.profiler.profile() as profile:
            augment(images, seed=1, pad=1, mirror=True)
        return len(profile.events())

    few, many = images_of(1, 2, 2, 3), images_of(1, 2, 2, 1025)  # eager runs dozens
    assert operations(few) < 10 < operations(many)


def test_what_cannot_run_says_why():
    images = images_of(1, 2, 2, 3)
    assert augment(images.to("meta")).shape == (1, 3, 2, 2)  # by the eager version
    with pytest.raises(ValueError, match="is for the CPU, and images are on meta"):
        augment(images.to("meta"), impl="native")
    with pytest.raises(ValueError, match="up to 1024 channels, and images have 1025"):
        augment(images_of(1, 1, 1, 1025), impl="native")
    with pytest.raises(ValueError, match=r"impl must be one of 'auto', 'triton', .*, got 'x'"):
        augment(images, impl="x")
