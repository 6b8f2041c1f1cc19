import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from fastnt.kernels.augment import augment
from fastnt.kernels.augment.eager import draw_crop_and_mirror

ROWS = torch.tensor([3, 0, 59_999, 4_000_000_000, 7, 7])


def make(count=6, height=5, width=7, channels=3):
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8)


def expected_views(reference, images, rows, seed, epoch, pad, mirror, flipped):
    """Pad, crop and mirror with NumPy, image by image; and what was drawn."""
    images, (_, height, width, _) = images.numpy(), images.shape
    words = reference.philox((0, rows.numpy(), epoch, reference.AUGMENT), seed)
    views = []
    for i, image in enumerate(images):
        dy, dx = ((int(words[k][i]) * (2 * pad + 1)) >> 32 for k in (0, 1))
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        view = padded[dy : dy + height, dx : dx + width]
        coin = mirror and int(words[2][i]) >= 2**31
        views.append(view[:, ::-1] if coin != bool(flipped is not None and flipped[i]) else view)
    return np.stack(views)


def pixels(output):
    """The uint8 pixels, (N, H, W, C), behind values that were not normalised."""
    return (output * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("pad", "mirror", "flip", "channels", "seed"),
    list(itertools.product([0, 1, 4, 9], [False, True], [False, True], [1, 3], [0, 2**64 - 3])),
)
def test_crop_and_mirror_equal_the_reference(reference, pad, mirror, flip, channels, seed):
    images = make(channels=channels)
    flipped = torch.tensor([True, False] * 3) if flip else None
    for epoch in (0, 3):
        given = {"seed": seed, "epoch": epoch, "pad": pad, "mirror": mirror, "flipped": flipped}
        output = augment(images, index=ROWS, **given)
        expected = expected_views(reference, images, ROWS, **given)
        assert np.array_equal(pixels(output), expected)
        assert output.shape == (6, channels, 5, 7)
        assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3,), (5, 7, 3)])
def test_normalises_in_float32_at_the_output_position(reference, shape, dtype):
    images, mean, std = make(), torch.rand(shape), torch.rand(shape) + 0.1
    view = {"seed": 5, "epoch": 2, "pad": 2, "mirror": True}
    raw = expected_views(reference, images, ROWS, **view, flipped=None).astype(np.float64)
    exact = (raw / 255 - mean.double().numpy()) / std.double().numpy()
    output = augment(images, index=ROWS, **view, mean=mean, std=std, dtype=dtype)
    assert output.dtype == dtype
    assert output.is_contiguous(memory_format=torch.channels_last)
    error = np.abs(output.double().permute(0, 2, 3, 1).numpy() - exact)
    # Three float32 roundings, of values up to 1 before the division, then one to the output.
    rounding = 2**-24 * (2 / std.numpy() + np.abs(exact))
    assert np.all(error <= rounding + torch.finfo(dtype).eps / 2 * np.abs(exact))
    only_mean = augment(images, index=ROWS, **view, mean=mean)
    assert torch.equal(only_mean, augment(images, index=ROWS, **view, mean=mean, std=torch.ones(3)))


def test_an_image_has_its_view_in_any_batch_and_another_in_the_next_epoch():
    images, index = make(40), torch.randperm(1000)[:40]
    given = {"seed": 1, "pad": 3, "mirror": True}
    whole = augment(images, index=index, epoch=0, **given)
    order = torch.randperm(40)[:17]
    assert torch.equal(whole[order], augment(images[order], index=index[order], epoch=0, **given))
    assert not torch.equal(whole, augment(images, index=index, epoch=1, **given))
    assert not torch.equal(whole, augment(images, index=index, epoch=0, **given | {"seed": 2}))


def test_seed_and_epoch_may_be_tensors():
    images = make()
    numbers = augment(images, index=ROWS, seed=2**64 - 1, epoch=4, pad=2, mirror=True)
    tensors = {"seed": torch.tensor(-1), "epoch": torch.tensor(4)}
    assert torch.equal(numbers, augment(images, index=ROWS, **tensors, pad=2, mirror=True))


def test_strided_images_and_no_images():
    images = make(12, 5, 14, 3)
    given = {"index": ROWS, "seed": 0, "epoch": 0, "mirror": True}
    strided = images[::2, :, ::2]
    assert torch.equal(augment(strided, **given, pad=1), augment(strided.clone(), **given, pad=1))
    planes = images[:6].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for pad in (0, 1):
        output = augment(planes, **given | {"mirror": bool(pad)}, pad=pad)
        assert output.is_contiguous(memory_format=torch.channels_last)
    empty = augment(images[:0], index=ROWS[:0], seed=0, epoch=0, pad=2, mirror=True)
    assert empty.shape == (0, 3, 5, 14)


def test_input_is_left_alone():
    images = make()
    before = images.clone()
    output = augment(images, index=ROWS, seed=0, epoch=0, pad=1, mirror=True)
    output.zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize("axis", [0, 1])
def test_shifts_are_uniform(axis):
    """Over many seeds the p-values are uniform, which says more than one p-value does."""
    pad = 4
    counts = [
        torch.bincount(
            draw_crop_and_mirror(torch.arange(10_000), seed, 1, pad)[axis] + pad, minlength=9
        )
        for seed in range(200)
    ]
    p_values = [stats.chisquare(count).pvalue for count in counts]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    assert stats.chisquare(sum(counts)).pvalue > 1e-3


def test_draws_are_independent():
    count, pad = 60_000, 4
    dy, dx, coin = draw_crop_and_mirror(torch.arange(count), 5, 1, pad)
    assert abs(coin.double().mean() - 0.5) < 5 * 0.5 / math.sqrt(count)
    later = draw_crop_and_mirror(torch.arange(count), 5, 2, pad)
    drawn = np.stack([x.double() for x in (dy, dx, coin, *later)])
    assert np.abs(np.corrcoef(drawn) - np.eye(6)).max() < 5 / math.sqrt(count)


def test_compiles_without_a_break():
    images = make()

    def view(seed, epoch):
        return augment(images, index=ROWS, seed=seed, epoch=epoch, pad=2, mirror=True)

    compiled = torch.compile(view, backend="eager", fullgraph=True)
    values = torch.tensor(3), torch.tensor(1)
    assert torch.equal(compiled(*values), view(*values))


class Normalise(torch.nn.Module):
    """Subtracts a mean of every pixel, whose shape the images must have."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.rand(5, 7, 3))

    def forward(self, images):
        return augment(images, mean=self.mean, impl="eager")


def test_compiles_with_symbolic_sizes():
    plain = Normalise()
    compiled = torch.compile(plain, backend="eager", fullgraph=True, dynamic=True)
    for count in (6, 3):
        images = make(count)
        assert torch.equal(compiled(images), plain(images))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": make()[0]}, ValueError, r"images must have the shape \(N, H, W, C\)"),
        ({"images": make().float()}, TypeError, "images must be torch.uint8, got torch.float32"),
        ({"index": ROWS.int()}, TypeError, "index must be torch.int64, got torch.int32"),
        ({"index": ROWS[:5]}, ValueError, r"index must have the shape \(6,\), got \(5,\)"),
        ({"index": ROWS.to("meta")}, ValueError, "index must be on the images' cpu, got meta"),
        ({"flipped": torch.zeros(6)}, TypeError, "flipped must be torch.bool"),
        ({"mean": torch.zeros(5)}, ValueError, r"mean must have the shape \(3,\) or \(5, 7, 3\)"),
        ({"std": torch.ones(3).double()}, TypeError, "std must be torch.float32"),
        ({"pad": -1}, ValueError, "pad must not be negative, got -1"),
        ({"dtype": torch.int32}, TypeError, "dtype must be float32, bfloat16 or float16"),
    ],
)
def test_bad_arguments(change, error, message):
    given = {"images": make(), "index": ROWS, "seed": 0, "epoch": 0} | change
    with pytest.raises(error, match=message):
        augment(given.pop("images"), **given)
