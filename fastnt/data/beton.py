"""The .beton file: FFCV's format 2, raw images only, written and read with numpy.

    header | 3 field descriptors | n records (image address, label, index) | padding to a page
    pages of whole images        | n allocations (sample, address, bytes)

The bytes are those that FFCV 1.0.2's own ``DatasetWriter`` gives for the same samples with one
worker (a test compares them). That writer is not used for two reasons: it waits forever if one of its
workers dies, for example because the disk is full; and machines without FFCV must prepare data too.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastnt.data import beton_head as head
from fastnt.errors import UserError

Images = NDArray[np.uint8]  # (n, H, W, C)
Labels = NDArray[np.int64]  # (n,)


class ImageRows(Protocol):
    """Images (n, H, W, C) uint8: an array, or an object that makes a slice when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (n, H, W, C)."""

    @property
    def dtype(self) -> Any:
        """The dtype uint8."""

    def __getitem__(self, places: slice, /) -> Images:
        """Return consecutive images."""


PAGE = 2 << 20  # the smallest page that FFCV allows; larger images need larger pages
_LARGEST_PAGE = 1 << 31
_RECORD = np.dtype([("address", "<u8"), ("label", "<i8"), ("index", "<i8")])
_FIELDS = {b"image": head.ARRAY, b"label": head.INT, b"index": head.INT}
_RECORDS_AT = head.HEADER.itemsize + len(_FIELDS) * head.FIELD.itemsize


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def write(path: Path, parts: Sequence[tuple[ImageRows, Labels]]) -> None:
    """Write the images and labels of ``parts``, one after the other, as one .beton file.

    Args:
        path: the file; an existing one is overwritten. Callers pass a temporary name.
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
    allocations = np.empty(count, head.ALLOCATION)
    allocations["sample"], allocations["address"] = index, records["address"]
    allocations["bytes"] = size

    fields = np.zeros(len(_FIELDS), head.FIELD)
    fields["type"], fields["name"] = list(_FIELDS.values()), list(_FIELDS)
    fields["arguments"][0] = np.void(head.image_arguments(shape).ljust(1024, b"\0"))
    end = first + -(-count // each_page) * page
    header = np.array([(head.VERSION, len(_FIELDS), page, count, end)], head.HEADER)
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


def read(path: Path) -> tuple[Images, Labels]:
    """Return all images (n, H, W, C) uint8 and labels (n,) int64 of a .beton file, in file order.

    Raises:
        FormatError: as :func:`fastnt.data.beton_head.layout`.
    """
    found = head.layout(path)
    file, records = _map(path, found)
    size, addresses = math.prod(found.shape), head.image_addresses(records, found.shape)
    if int(addresses.max()) + size > len(file):
        raise head.FormatError("an image lies beyond its end")
    images = np.empty((found.count, size), np.uint8)
    # Images that lie next to each other, as those of a page do, are copied in one piece.
    gaps = np.flatnonzero(np.diff(addresses.astype(np.int64)) != size) + 1
    for start, stop in pairwise([0, *gaps.tolist(), found.count]):
        address = int(addresses[start])
        images[start:stop].reshape(-1)[:] = file[address : address + (stop - start) * size]
    return images.reshape(found.count, *found.shape), records["label"].astype(np.int64)


def read_labels(path: Path) -> Labels:
    """Return all labels (n,) int64 of a .beton file, in file order, without reading the images.

    Raises:
        FormatError: as :func:`fastnt.data.beton_head.layout`.
    """
    labels: Labels = _map(path, head.layout(path))[1]["label"].astype(np.int64)
    return labels


def _map(path: Path, found: head.Layout) -> tuple[NDArray[np.uint8], NDArray[np.void]]:
    """Return the file's bytes, mapped, and its records among them."""
    file = np.memmap(path, np.uint8, "r")
    end = found.records + found.count * found.record.itemsize
    return file, file[found.records : end].view(found.record)
