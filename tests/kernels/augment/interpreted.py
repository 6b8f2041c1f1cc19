"""The Triton kernel in the interpreter: every option bit-equal to eager, at small sizes."""

import itertools

import pytest
import torch

from fastnt.kernels.augment import augment, triton

ROWS = torch.tensor([3, 0, 59_999, 4_000_000_000, 7])


def images_of(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def assert_same_bits(images, dtype=torch.float32, **given):
    ours = augment(images, dtype=dtype, impl="triton", **given)
    if dtype == torch.bfloat16:  # The interpreter cuts it off instead of rounding.
        plain = augment(images, impl="eager", **given)
        plain = (plain.view(torch.int32) & -65536).view(torch.float32).to(dtype)
    else:
        plain = augment(images, dtype=dtype, impl="eager", **given)
    assert torch.equal(ours, plain)
    assert ours.stride() == plain.stride()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("pad", "mirror", "flip"), list(itertools.product([0, 1, 4, 40], [False, True], [False, True]))
)
def test_every_view_equals_eager(pad, mirror, flip, channels):
    images = images_of(5, 5, 7, channels)
    flipped = torch.tensor([True, False, False, True, True]) if flip else None
    for seed, epoch, index in ((0, 0, None), (2**64 - 3, torch.tensor(5), ROWS)):
        given = {"seed": seed, "epoch": epoch, "pad": pad, "mirror": mirror, "flipped": flipped}
        assert_same_bits(images, index=index, **given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape",
    [
        (5, 7, 3),
        (8, 8, 1),
        (1, 1, 1),
        (2, 3, 5),
        pytest.param((19, 31, 3), marks=pytest.mark.slow),
    ],
)
def test_normalises_as_eager(shape, dtype):
    pixel, view = torch.Size(shape), {"seed": 5, "pad": 2, "mirror": True}
    images = images_of(3, *shape)
    for means, stds in itertools.product((None, shape[2:], pixel), repeat=2):
        mean = None if means is None else torch.rand(means)
        std = None if stds is None else torch.rand(stds) + 0.1
        assert_same_bits(images, **view, mean=mean, std=std, dtype=dtype)


def test_every_pixel_value_is_divided_exactly():
    for dtype in (torch.float32, torch.float16):
        assert_same_bits(torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1), dtype=dtype)


def test_strided_tensors_are_read_in_place():
    images = images_of(8, 20, 14, 6)
    for part in (
        images[::2, 1::2, :7, ::2],
        images[:, :3].permute(0, 2, 3, 1)[:, :10, :6, :3],
        images[:1].expand(5, -1, -1, -1)[..., :3],
    ):
        rows = torch.arange(2 * len(part))[::2]
        flipped = (rows % 4 == 0).repeat(2)[::2]
        mean = torch.rand(part.shape[3], *part.shape[1:3]).permute(1, 2, 0)
        given = {"index": rows, "flipped": flipped, "mean": mean, "std": torch.rand(6)[::2] + 0.1}
        assert_same_bits(part, seed=1, pad=3, mirror=True, **given)


def test_runs_of_blocks_cover_every_value(monkeypatch):
    options = {"BLOCK": 32, "RUN": 8, "num_warps": 1}
    monkeypatch.setattr(triton, "launch_options", lambda *shape: options)
    assert_same_bits(images_of(3, 13, 17, 3), seed=4, pad=3, mirror=True, mean=torch.rand(3))


def test_the_launch_fits_the_images():
    launch_options = triton.launch_options
    assert launch_options(512, 8, 8, 1) == {"BLOCK": 64, "RUN": 1, "num_warps": 1}
    assert launch_options(512, 32, 32, 3) == {"BLOCK": 1024, "RUN": 1, "num_warps": 4}
    assert launch_options(512, 224, 224, 3) == {"BLOCK": 1024, "RUN": 8, "num_warps": 4}


def test_no_images_and_input_is_left_alone():
    for shape in ((0, 4, 4, 3), (2, 0, 4, 3)):
        output = augment(images_of(*shape), seed=1, pad=1, mirror=True, impl="triton")
        assert output.shape == (shape[0], 3, *shape[1:3])
    images = images_of(2, 5, 7, 3)
    before = images.clone()
    augment(images, pad=1, mirror=True, impl="triton").zero_()
    assert torch.equal(images, before)


@pytest.mark.slow
def test_the_registered_op():
    images, zero = images_of(2, 5, 7, 3), torch.tensor(0)
    arguments = images, None, zero, zero, 1, True, None, None, None, torch.float32
    output = torch.ops.fastnt.augment_triton(*arguments)
    same = augment(images, pad=1, mirror=True, impl="eager")
    assert torch.equal(output.permute(0, 3, 1, 2), same)
    torch.library.opcheck(torch.ops.fastnt.augment_triton.default, arguments)


@pytest.mark.slow
def test_compiled_whole():
    images, rows = images_of(3, 5, 7, 3), torch.arange(3) + 7
    given = {"index": rows, "pad": 2, "mirror": True, "mean": torch.rand(3), "impl": "triton"}
    compiled = torch.compile(
        lambda x, seed: augment(x, seed=seed, **given), fullgraph=True, backend="aot_eager"
    )
    for seed in torch.arange(2):
        assert torch.equal(compiled(images, seed), augment(images, seed=seed, **given))


def test_bad_arguments_are_refused_and_auto_does_not_interpret():
    with pytest.raises(TypeError, match=r"images must be torch\.uint8"):
        augment(torch.zeros(2, 5, 7, 3), impl="triton")
    with torch.profiler.profile() as profile:  # in which the interpreter shows dozens
        augment(images_of(1, 2, 2, 3), seed=1, pad=1)
    assert len(profile.events()) < 10
    with pytest.raises(ValueError, match="images of less than 2\\^30 values"):
        augment(images_of(1, 1, 1, 1).expand(1, 2**15, 2**15, 1), impl="triton")
