"""The .beton file: FFCV's format 2, raw images only, written and read with numpy.

    header | 3 field descriptors | n records (image address, label, index) | padding to a page
    pages of whole images        | n allocations (sample, address, bytes)

The bytes are those that FFCV 1.0.2's own ``DatasetWriter`` gives for the same samples with one
worker (a test compares them). That writer is not used because it waits for ever once one of its
workers has died, of a full disk say, and because a machine without FFCV must prepare data too.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastnt.errors import UserError

Images = NDArray[np.uint8]  # (n, H, W, C)
Labels = NDArray[np.int64]  # (n,)


class ImageRows(Protocol):
    """Images (n, H, W, C) uint8: an array, or what makes them when a slice is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (n, H, W, C)."""

    @property
    def dtype(self) -> Any:
        """The dtype uint8."""

    def __getitem__(self, rows: slice, /) -> Images:
        """Return consecutive images."""


PAGE = 2 << 20  # the smallest that FFCV allows; larger images take larger pages
_LARGEST_PAGE = 1 << 31
_VERSION = 2
_HEADER = np.dtype(
    {
        "names": ["version", "fields", "page", "samples", "allocations"],
        "formats": ["<u2", "<u2", "<u4", "<u8", "<u8"],
    }
)
_FIELD = np.dtype([("type", "u1"), ("name", "S16"), ("arguments", "V1024")])
_RECORD = np.dtype([("address", "<u8"), ("label", "<i8"), ("index", "<i8")])
_ALLOCATION = np.dtype([("sample", "<u8"), ("address", "<u8"), ("bytes", "<u8")])
_FIELDS = {b"image": 4, b"label": 1, b"index": 1}  # NDArrayField, IntField, IntField
_NUMBERS = (0, 1)  # FloatField, IntField: what other people's files may hold besides
_DIMENSIONS = 32  # room for a shape in an NDArrayField's arguments
_RECORDS_AT = _HEADER.itemsize + len(_FIELDS) * _FIELD.itemsize


class FormatError(Exception):
    """The file is not a raw .beton of the fields image and label: why, in a few words."""


@dataclass(frozen=True)
class Layout:
    """What the head of a .beton file says about its images."""

    count: int
    shape: tuple[int, ...]
    page: int
    allocations: int  # address of the allocation table, the last thing in the file
    records: int  # address of the records
    record: "np.dtype[np.void]"  # one record; its image is an address

    @property
    def size(self) -> int:
        """Bytes in the whole file."""
        return self.allocations + self.count * _ALLOCATION.itemsize


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _image_arguments(shape: Sequence[int]) -> bytes:
    """Return an NDArrayField's arguments: shape, length of the dtype's description, description."""
    kind = json.dumps(np.dtype("u1").descr).encode()
    numbers = [*shape, *[0] * (_DIMENSIONS - len(shape)), len(kind)]
    return np.array(numbers, "<u8").tobytes() + kind


def write(path: Path, parts: Sequence[tuple[ImageRows, Labels]]) -> None:
    """Write the images and labels of ``parts``, one after the other, as one .beton file.

    Args:
        path: the file, overwritten; callers hand in a temporary name.
        parts: pairs of images (n, H, W, C) uint8, in any memory layout, and labels (n,) int64.

    Raises:
        OSError: the file cannot be written.
    """
    shape = parts[0][0].shape[1:]
    for images, labels in parts:
        if images.dtype != np.uint8 or images.shape != (len(labels), *shape):
            raise ValueError(f"images are {images.dtype} {images.shape}, labels {labels.shape}")
    count, size = sum(len(labels) for _, labels in parts), math.prod(shape)
    page = max(PAGE, 1 << (size - 1).bit_length())
    if page > _LARGEST_PAGE:
        raise UserError(
            f"images of {size:,} bytes are too large for a .beton file; make them smaller"
        )
    each_page = page // size
    first = _round_up(_RECORDS_AT + count * _RECORD.itemsize, page)

    index = np.arange(count, dtype=np.int64)
    records = np.empty(count, _RECORD)
    records["address"] = first + index // each_page * page + index % each_page * size
    records["label"] = np.concatenate([labels for _, labels in parts])
    records["index"] = index
    allocations = np.empty(count, _ALLOCATION)
    allocations["sample"], allocations["address"] = index, records["address"]
    allocations["bytes"] = size

    fields = np.zeros(len(_FIELDS), _FIELD)
    fields["type"], fields["name"] = list(_FIELDS.values()), list(_FIELDS)
    fields["arguments"][0] = np.void(_image_arguments(shape).ljust(1024, b"\0"))
    end = first + -(-count // each_page) * page
    header = np.array([(_VERSION, len(_FIELDS), page, count, end)], _HEADER)
    with path.open("wb") as file:
        for block in (header, fields, records):
            file.write(block.tobytes())
        file.write(bytes(first - file.tell()))
        for content in _pages(parts, each_page):
            file.write(content.ljust(page, b"\0"))
        file.write(allocations.tobytes())


def _pages(parts: Sequence[tuple[ImageRows, Labels]], each_page: int) -> Iterator[bytes]:
    """Yield the bytes of ``each_page`` images at a time, across the parts."""
    waiting: list[bytes] = []
    room = each_page
    for images, _ in parts:
        start = 0
        while start < images.shape[0]:
            piece = images[start : start + room]
            waiting.append(piece.tobytes())
            start, room = start + len(piece), room - len(piece)
            if room == 0:
                yield b"".join(waiting)
                waiting, room = [], each_page
    if waiting:
        yield b"".join(waiting)


def layout(path: Path) -> Layout:
    """Read the head of a .beton file.

    Raises:
        FormatError: it is something else, holds JPEG-coded images, no image and label, or too few bytes.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER.itemsize)
        if len(head) < _HEADER.itemsize:
            raise FormatError("it is cut short")
        header = np.frombuffer(head, _HEADER, 1)[0]
        number = int(header["fields"])
        if header["version"] != _VERSION or not 0 < number <= 64:
            raise FormatError("it is not a .beton file of format 2")
        descriptors = file.read(number * _FIELD.itemsize)
        records = file.tell()
        length = file.seek(0, 2)
    if len(descriptors) < number * _FIELD.itemsize:
        raise FormatError("it is cut short")
    fields = np.frombuffer(descriptors, _FIELD, number)
    record, shape = _record(fields)
    result = Layout(
        count=int(header["samples"]),
        shape=shape,
        page=int(header["page"]),
        allocations=int(header["allocations"]),
        records=records,
        record=record,
    )
    if result.count == 0:
        raise FormatError("it holds no samples")
    if length < max(result.size, records + result.count * record.itemsize):
        raise FormatError(f"it is cut short: {length:,} of {result.size:,} bytes")
    return result


def _record(fields: NDArray[np.void]) -> tuple["np.dtype[np.void]", tuple[int, ...]]:
    """Return the type of a record of these fields, and the shape of an image."""
    if np.any(fields["type"] == 2):  # RGBImageField
        raise FormatError("its images may be JPEG-coded, and fastnt reads raw arrays only")
    found = dict(zip(fields["name"].tolist(), fields["type"].tolist(), strict=True))
    wanted = {name: found.pop(name, None) for name in (b"image", b"label")}
    if any(kind != _FIELDS[name] for name, kind in wanted.items()):
        raise FormatError("it does not hold the fields image, an array, and label, an integer")
    if any(kind not in _NUMBERS for kind in found.values()):
        raise FormatError("it holds other fields than image, label and numbers")
    if len(found) + len(wanted) < len(fields):
        raise FormatError("it holds a field twice")
    arguments = fields["arguments"][fields["name"] == b"image"][0].tobytes()
    shape = tuple(int(n) for n in np.frombuffer(arguments, "<u8", _DIMENSIONS) if n)
    if not shape or not arguments.startswith(_image_arguments(shape)):
        raise FormatError("its images are not uint8 arrays")
    kinds = {b"image": "<u8", b"label": "<i8"}
    names = fields["name"].tolist()
    return np.dtype([(name.decode("latin-1"), kinds.get(name, "V8")) for name in names]), shape


def read(path: Path) -> tuple[Images, Labels]:
    """Return all images (n, H, W, C) uint8 and labels (n,) int64 of a .beton file, in file order.

    Raises:
        FormatError: as :func:`layout`.
    """
    found = layout(path)
    file, records = _map(path, found)
    size = math.prod(found.shape)
    if found.count and int(records["image"].max()) + size > len(file):
        raise FormatError("an image lies beyond its end")
    images = np.empty((found.count, size), np.uint8)
    # Images that lie back to back, which is all of a page, are copied in one piece.
    gaps = np.flatnonzero(np.diff(records["image"].astype(np.int64)) != size) + 1
    for start, stop in pairwise([0, *gaps.tolist(), found.count]):
        address = int(records["image"][start])
        images[start:stop].reshape(-1)[:] = file[address : address + (stop - start) * size]
    return images.reshape(found.count, *found.shape), records["label"].astype(np.int64)


def read_labels(path: Path) -> Labels:
    """Return all labels (n,) int64 of a .beton file, in file order, without reading the images.

    Raises:
        FormatError: as :func:`layout`.
    """
    labels: Labels = _map(path, layout(path))[1]["label"].astype(np.int64)
    return labels


def _map(path: Path, found: Layout) -> tuple[NDArray[np.uint8], NDArray[np.void]]:
    """Return the file's bytes, mapped, and its records among them."""
    file = np.memmap(path, np.uint8, "r")
    end = found.records + found.count * found.record.itemsize
    return file, file[found.records : end].view(found.record)
