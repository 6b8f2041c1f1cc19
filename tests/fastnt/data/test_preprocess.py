"""The paper's preprocessing, from uint8 images to float tensors."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from fastnt.data.preprocess import LCN_SIGMA, LCN_SIZE, Preprocess, View, local_contrast_normalise

SHAPE = (6, 5, 3)


def _images(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def test_none_scales_to_the_unit_interval_in_channels_last_memory() -> None:
    images = _images(4)
    pixels = Preprocess("none", SHAPE)(images)
    assert pixels.shape == (4, 3, 6, 5)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, (images.float() / 255).permute(0, 3, 1, 2))


def test_flipped_rows_are_mirror_images() -> None:
    images, flipped = _images(4), torch.tensor([True, False, True, False])
    pixels = Preprocess("none", SHAPE)(images, View(flipped))
    plain = Preprocess("none", SHAPE)(images)
    assert torch.equal(pixels[flipped], plain[flipped].flip(3))
    assert torch.equal(pixels[~flipped], plain[~flipped])


def test_pixel_mean_of_the_training_list_becomes_zero() -> None:
    images = _images(50)
    preprocess = Preprocess("pixel_mean", SHAPE)
    flipped = torch.arange(50) >= 25
    batches = list(zip(images.split(16), map(View, flipped.split(16)), strict=True))
    preprocess.fit(batches)
    seen = torch.cat([preprocess(part, flips) for part, flips in batches])
    # Means of 50 float32 values below 1.
    assert seen.mean(0).abs().max() < 1e-6
    mean = torch.where(flipped[:, None, None, None], images.flip(2), images).double().mean(0) / 255
    assert torch.allclose(preprocess.mean.double(), mean, atol=1e-7)


def test_the_mean_travels_with_the_state() -> None:
    fitted, loaded = Preprocess("pixel_mean", SHAPE), Preprocess("pixel_mean", SHAPE)
    fitted.fit([(_images(9), None)])
    loaded.load_state_dict(fitted.state_dict())
    assert torch.equal(fitted(_images(3)), loaded(_images(3)))


def test_lcn_matches_a_float64_reference() -> None:
    shape = (20, 18, 3)
    images = _images(2, shape)
    found = Preprocess("lcn", shape)(images).double().numpy()

    at = np.arange(LCN_SIZE) - LCN_SIZE // 2
    line = np.exp(-0.5 * (at / LCN_SIGMA) ** 2)
    window = np.outer(line, line)[..., None] * np.ones(3)
    for image, out in zip(images.numpy() / 255.0, found, strict=True):
        # A window over rows, columns and all channels: sum the channels, then weight.
        def local_mean(x: np.ndarray) -> np.ndarray:
            summed = correlate(x.sum(2), window[..., 0], mode="constant")
            norm = correlate(np.ones(shape[:2]), window[..., 0], mode="constant")
            return (summed / norm / 3)[..., None]

        centred = image - local_mean(image)
        deviation = np.sqrt(local_mean(centred**2))
        expected = centred / np.maximum(deviation, deviation.mean())
        np.testing.assert_allclose(out, expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-5)


def test_lcn_does_not_see_brightness_or_contrast() -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand((1, 3, 16, 16), generator=generator)
    plain = local_contrast_normalise(image)
    assert torch.allclose(local_contrast_normalise(0.5 * image + 0.2), plain, atol=1e-4)
    assert torch.equal(local_contrast_normalise(torch.zeros(1, 1, 8, 8)), torch.zeros(1, 1, 8, 8))


def test_lcn_is_as_exact_under_autocast() -> None:
    images = _images(2, (16, 16, 3))
    preprocess = Preprocess("lcn", (16, 16, 3))
    with torch.autocast("cpu", torch.bfloat16):
        found = preprocess(images)
    assert torch.equal(found, preprocess(images))


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="preprocess is 'zca'"):
        Preprocess("zca", SHAPE)
