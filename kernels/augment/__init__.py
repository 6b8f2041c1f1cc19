"""Crop, mirror and normalise: uint8 images in, channels-last floats out, keyed by their rows."""

from fastnt.kernels.augment.op import augment

__all__ = ["augment"]
