"""Read arrays of numbers from MATLAB 5 files, SVHN's format (MathWorks, "MAT-File Format").

    128 bytes of head | elements: a tag (type, bytes), then the bytes, padded to 8

An array is an element that holds elements: class, shape, name, and the numbers in Fortran order. A
compressed element holds one deflated element. SciPy's reader, which is in C, crashes on some damaged
files. This reader refuses sizes that the file cannot hold, and memory grows with the bytes read.
"""

import math
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from fastnt.files import DEFLATE

_HEAD = 128
_MATRIX, _COMPRESSED = 14, 15
# The dtype in which numbers are stored, by element type; and their dtype, by array class.
_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_CLASSES = dict(enumerate(("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), start=6))
_COMPLEX = 0x800
_PIECE = 1 << 20
_MOST_DIMENSIONS, _LONGEST_NAME = 32, 64


class MatError(Exception):
    """The file is not a MATLAB 5 file or is damaged; the message says why."""


class _Source(Protocol):
    """The source of an element's bytes."""

    left: int  # so many bytes are left, at most

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, or fewer at the end."""


class _Plain:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.left = file, size

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self.left))
        self.left -= len(data)
        return data


class _Inflated:
    """The bytes of a compressed element; they are inflated as they are read."""

    def __init__(self, source: _Plain) -> None:
        self._source, self._inflater, self.left = (
            source,
            zlib.decompressobj(),
            source.left * DEFLATE,
        )

    def read(self, size: int) -> bytes:
        pieces, wanted = [], size
        while wanted and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._source.read(_PIECE)
            piece = self._inflater.decompress(packed, wanted)
            if not packed and not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
        self.left -= size - wanted
        return b"".join(pieces)

    def end(self) -> None:
        """Verify the checksum at the end.

        Raises:
            MatError: there is none, or there are more bytes.
        """
        if self.read(1) or not self._inflater.eof:
            raise MatError("a compressed array does not end where it should")


def read_mat5(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Return those arrays of these names that the file has, in Fortran order.

    Raises:
        MatError: the file is no MATLAB 5 file, is damaged, or one of the arrays is not of numbers.
        OSError: the file cannot be read.
    """
    found: dict[str, NDArray[Any]] = {}
    with path.open("rb") as file:
        head = file.read(_HEAD)
        order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
        if order is None:
            raise MatError("it has no head of one")
        end = file.seek(0, 2)
        place = _HEAD
        try:
            while place < end:
                file.seek(place)
                kind, size, _ = _tag(_Plain(file, 8), order)
                if size > end - place - 8:
                    raise MatError("it is cut short")
                source: _Source = _Plain(file, size)
                inflated = _Inflated(_Plain(file, size)) if kind == _COMPRESSED else None
                if inflated is not None:
                    source = inflated
                    kind, source.left, _ = _tag(source, order)
                if kind == _MATRIX:
                    name, array = _matrix(source, order, names)
                    if array is not None:
                        found[name] = array
                        if inflated is not None:
                            inflated.end()
                place += 8 + size
        except zlib.error as error:
            raise MatError(f"a compressed array is damaged ({error})") from error
        except MemoryError as error:
            raise MatError("it promises more than the memory holds") from error
    return found


def _matrix(source: _Source, order: str, names: Collection[str]) -> tuple[str, NDArray[Any] | None]:
    """Return an array's name, and its numbers if the name is one of ``names``."""
    flags = _integers(source, f"{order}u4", 2)
    shape = tuple(_integers(source, f"{order}i4", _MOST_DIMENSIONS))
    name = _small(source, order, _LONGEST_NAME).decode("latin-1")
    if name not in names:
        return name, None
    kind = flags[0] & 0xFF if flags else 0
    if kind not in _CLASSES or flags[0] & _COMPLEX:
        raise MatError(f"{name} is no array of real numbers")
    if not shape or min(shape) < 0:
        raise MatError(f"{name} has the shape {shape}")
    stored, size, data = _tag(source, order)
    dtype = np.dtype(order + _STORED.get(stored, "V1"))
    if stored not in _STORED or size != math.prod(shape) * dtype.itemsize:
        raise MatError(f"{size:,} bytes are not the numbers of {name}, which has the shape {shape}")
    if size > source.left + len(data):
        raise MatError(f"{name} promises more numbers than the file can hold")
    numbers = np.empty(size, np.uint8)  # the system provides memory only where bytes are written
    numbers[: len(data)] = np.frombuffer(data, np.uint8)
    done = len(data)
    while done < size:
        piece = source.read(min(_PIECE, size - done))
        if not piece:
            raise MatError(f"{name} is cut short")
        numbers[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    array = numbers.view(dtype).reshape(shape, order="F")
    if not data:
        source.read(-size % 8)
    return name, array.astype(_CLASSES[kind], copy=False)


def _tag(source: _Source, order: str) -> tuple[int, int, bytes]:
    """Return an element's type and size, and its bytes if the tag itself holds them."""
    tag = source.read(8)
    if len(tag) < 8:
        raise MatError("it is cut short")
    kind, size = np.frombuffer(tag, f"{order}u4").tolist()
    if kind >> 16:
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise MatError("a small element is too large")
        return kind, size, tag[4 : 4 + size]
    return kind, size, b""


def _integers(source: _Source, kind: str, most: int) -> list[int]:
    """Return the integers of an element that has at most ``most``."""
    data = _small(source, kind[0], 4 * most)
    if len(data) % 4:
        raise MatError(f"an element of {len(data)} bytes stands where integers belong")
    integers: list[int] = np.frombuffer(data, kind).tolist()
    return integers


def _small(source: _Source, order: str, most: int) -> bytes:
    """Return the bytes of an element that has at most ``most``."""
    _, size, data = _tag(source, order)
    if size > most:
        raise MatError(f"an element of {size:,} bytes stands where one of {most} at most belongs")
    if data or not size:
        return data
    data = source.read(size + -size % 8)[:size]
    if len(data) < size:
        raise MatError("it is cut short")
    return data
