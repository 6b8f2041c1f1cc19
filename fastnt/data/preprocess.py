"""From raw uint8 images to what a network sees: the paper's preprocessing (section 4).

none        MNIST: pixels scaled to [0, 1]
pixel_mean  CIFAR-10: the training list's mean of every pixel is subtracted
lcn         SVHN: local contrast normalisation (Jarrett et al. 2009, section 2)
"""

from collections.abc import Iterable
from functools import reduce
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from fastnt.kernels.augment import augment

Preprocessing = Literal["none", "pixel_mean", "lcn"]
LCN_SIZE, LCN_SIGMA = 9, 2.0  # window of Jarrett et al.; the paper names none


class View(NamedTuple):
    """How the network sees the images of a batch: which are mirrored, and how they are cropped.

    Random crops and mirroring are a function of (seed, epoch, row).
    """

    flipped: Tensor | None = None  # (N,) bool, images that are mirrored in every epoch
    index: Tensor | None = None  # type: ignore[assignment]  # (N,) int64, rows; hides tuple.index
    seed: int = 0
    epoch: Tensor | int = 0
    pad: int = 0  # crops are shifted by up to so many pixels each way
    mirror: bool = False  # mirror with probability 1/2


class Preprocess(nn.Module):
    """uint8 images (N, H, W, C) to float32 (N, C, H, W) in channels_last memory.

    The fitted mean of each pixel is a buffer, so that it is saved with the network.
    """

    mean: Tensor

    def __init__(self, kind: str, shape: tuple[int, int, int]) -> None:
        """``shape`` is one image, (height, width, channels)."""
        super().__init__()
        kinds = get_args(Preprocessing)
        if kind not in kinds:
            raise ValueError(f"preprocess is {kind!r}; it must be one of {', '.join(kinds)}")
        self.kind, self.shape = kind, shape
        self.impl = "auto"  # of augment; exporters need "eager", which is plain torch
        if kind == "pixel_mean":
            self.register_buffer("mean", torch.zeros(shape))

    def fit(self, batches: Iterable[tuple[Tensor, View | None]]) -> None:
        """Fit on the training list: images (B, H, W, C) uint8 and their view, a batch at a time.

        The batches are read only if there is something to fit.
        """
        if self.kind != "pixel_mean":
            return
        total, count = torch.zeros_like(self.mean, dtype=torch.int64), 0
        for images, view in batches:
            if view is not None and (flipped := view.flipped) is not None:
                images = torch.where(flipped[:, None, None, None], images.flip(2), images)
            total += images.sum(0, dtype=torch.int64).to(total.device)
            count += len(images)
        self.mean.copy_(total / (255.0 * max(count, 1)))

    def forward(self, images: Tensor, view: View | None = None) -> Tensor:
        """Normalise ``images`` as ``view`` shows them; None shows them as they are."""
        mean = self.mean if self.kind == "pixel_mean" else None
        pixels = augment(images, mean=mean, impl=self.impl, **(view or View())._asdict())
        return local_contrast_normalise(pixels) if self.kind == "lcn" else pixels


def local_contrast_normalise(images: Tensor) -> Tensor:
    """Subtract the local mean, then divide by the local standard deviation, of (N, C, H, W) floats.

    Both are weighted by a 9 x 9 Gaussian window over all channels (Jarrett et al. 2009: v = x - w*x,
    then v / max(mean(s), s) with s = sqrt(w*v^2), the mean taken over the image). At the border the
    window is renormalised over the pixels that exist, so that a constant image gives zeros. The
    window is the product of a window over rows and one over columns, so that two small matrix products
    an image suffice. Autocast is off inside: bfloat16 is too coarse for differences of similar values.
    """
    down, across = (_gaussian(size, images) for size in images.shape[2:])

    def local_mean(x: Tensor) -> Tensor:
        # Channels are added one by one: on a CPU a reduction over so few is six times slower.
        total = reduce(torch.add, torch.unbind(x, 1))
        return (down @ (total / x.shape[1]) @ across.T)[:, None]

    with torch.autocast(images.device.type, enabled=False):
        centred = images - local_mean(images)
        deviation = local_mean(centred.square()).sqrt()
        floor = deviation.mean(dim=(1, 2, 3), keepdim=True)
        # A constant image has no contrast to divide by; it stays zero.
        return centred / torch.maximum(deviation, floor).clamp_min(1e-4)


def _gaussian(size: int, like: Tensor) -> Tensor:
    """Return weights (size, size) for one dimension; row i averages over the window around i."""
    at = torch.arange(size, dtype=like.dtype, device=like.device)
    distance = at[:, None] - at
    weights = torch.exp(-0.5 * (distance / LCN_SIGMA).square())
    weights = weights * (distance.abs() <= LCN_SIZE // 2)
    return weights / weights.sum(1, keepdim=True)
