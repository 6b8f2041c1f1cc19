"""The head of a .beton file, FFCV's format 2: which fields it has, and where they are.

header | field descriptors | n records (a value or an address a field) | padding to a page
pages of images            | n allocations (sample, address, bytes)
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

VERSION = 2
HEADER = np.dtype(
    {
        "names": ["version", "fields", "page", "samples", "allocations"],
        "formats": ["<u2", "<u2", "<u4", "<u8", "<u8"],
    }
)
FIELD = np.dtype([("type", "u1"), ("name", "S16"), ("arguments", "V1024")])
ALLOCATION = np.dtype([("sample", "<u8"), ("address", "<u8"), ("bytes", "<u8")])
FLOAT, INT, RGB, ARRAY = 0, 1, 2, 4  # FloatField, IntField, RGBImageField, NDArrayField
_RGB_IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("address", "<u8")])
_JPEG, _RAW = 0, 1  # modes of an RGBImageField's image
_DIMENSIONS = 32  # room for a shape in an NDArrayField's arguments


class FormatError(Exception):
    """The file is not a raw .beton file with image and label; the message says why."""


@dataclass(frozen=True)
class Layout:
    """What the head of a .beton file says about its images."""

    count: int
    shape: tuple[int, ...]
    page: int
    allocations: int  # address of the allocation table, which ends the file
    records: int  # address of the records
    record: "np.dtype[np.void]"  # its image is an address, or an RGBImageField's record

    @property
    def size(self) -> int:
        """Bytes in the whole file."""
        return self.allocations + self.count * ALLOCATION.itemsize


def image_arguments(shape: Sequence[int]) -> bytes:
    """Return an NDArrayField's arguments: shape, length of the dtype's description, description."""
    kind = json.dumps(np.dtype("u1").descr).encode()
    numbers = [*shape, *[0] * (_DIMENSIONS - len(shape)), len(kind)]
    return np.array(numbers, "<u8").tobytes() + kind


def layout(path: Path) -> Layout:
    """Read the head of a .beton file.

    Raises:
        FormatError: the file has another format, JPEG-coded images, no image and label, or too few bytes.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEADER.itemsize)
        if len(head) < HEADER.itemsize:
            raise FormatError("it is cut short")
        header = np.frombuffer(head, HEADER, 1)[0]
        number, count = int(header["fields"]), int(header["samples"])
        if header["version"] != VERSION or not 0 < number <= 64:
            raise FormatError("it is not a .beton file of format 2")
        descriptors = file.read(number * FIELD.itemsize)
        if len(descriptors) < number * FIELD.itemsize:
            raise FormatError("it is cut short")
        fields = np.frombuffer(descriptors, FIELD, number)
        record, records = _record(fields), file.tell()
        first = file.read(record.itemsize)
        length = file.seek(0, 2)
    if count == 0:
        raise FormatError("it holds no samples")
    wanted = int(header["allocations"]) + count * ALLOCATION.itemsize
    if length < max(wanted, records + count * record.itemsize):
        raise FormatError(f"it is cut short: {length:,} of {wanted:,} bytes")
    shape = _shape(fields, np.frombuffer(first, record)["image"])
    if count * math.prod(shape) > length:
        raise FormatError(f"its {length:,} bytes cannot hold {count:,} images of {shape}")
    return Layout(count, shape, int(header["page"]), int(header["allocations"]), records, record)


def image_addresses(records: NDArray[np.void], shape: tuple[int, ...]) -> NDArray[np.uint64]:
    """Return the address (n,) of each image.

    Raises:
        FormatError: images of an RGBImageField are JPEG-coded or differ in size.
    """
    images = records["image"]
    if images.dtype.names is None:
        return images
    if np.any(images["mode"] == _JPEG):
        raise FormatError(
            f"image {np.argmax(images['mode'] == _JPEG)} is JPEG-coded, and fastnt reads raw images only"
        )
    if np.any(images["mode"] != _RAW):
        raise FormatError(f"image {np.argmax(images['mode'] != _RAW)} is of no known mode")
    others = (images["height"] != shape[0]) | (images["width"] != shape[1])
    if np.any(others):
        row = int(np.argmax(others))
        raise FormatError(
            f"image {row} has {images['width'][row]} x {images['height'][row]} pixels, the first "
            f"{shape[1]} x {shape[0]}, and fastnt reads images of one size"
        )
    return images["address"]


def _record(fields: NDArray[np.void]) -> "np.dtype[np.void]":
    """Return the NumPy type of a record with these fields, aligned as FFCV aligns it."""
    names, kinds = fields["name"].tolist(), fields["type"].tolist()
    found = dict(zip(names, kinds, strict=True))
    image, label = (found.pop(name, None) for name in (b"image", b"label"))
    if image not in (ARRAY, RGB) or label != INT:
        raise FormatError("it does not hold the fields image, an array, and label, an integer")
    if any(kind not in (FLOAT, INT) for kind in found.values()):
        raise FormatError("it holds other fields than image, label and numbers")
    if len(found) + 2 < len(fields):
        raise FormatError("it holds a field twice")
    types = {b"image": "<u8" if image == ARRAY else _RGB_IMAGE, b"label": "<i8"}
    record = [
        (n.decode() if n in types else str(place), types.get(n, "<u8"))
        for place, n in enumerate(names)
    ]
    return np.dtype(record, align=True)


def _shape(fields: NDArray[np.void], first: NDArray[np.void]) -> tuple[int, ...]:
    """Return the shape of the images; for an RGBImageField, the shape of the first one."""
    if first.dtype.names is not None:
        if first["mode"][0] == _JPEG:  # it would have too few bytes for its pixels
            raise FormatError("its images are JPEG-coded, and fastnt reads raw images only")
        return int(first["height"][0]), int(first["width"][0]), 3
    arguments = fields["arguments"][fields["name"] == b"image"][0].tobytes()
    shape = tuple(int(n) for n in np.frombuffer(arguments, "<u8", _DIMENSIONS) if n)
    if not shape or not arguments.startswith(image_arguments(shape)):
        raise FormatError("its images are not uint8 arrays")
    return shape
