"""Readers of the official files: IDX, CIFAR-10 binary, SVHN's MATLAB files, scikit-learn's digits.

Each returns images (n, H, W, C) uint8 and labels (n,) int64. Whatever is wrong with a file becomes a
``UserError`` that names the file. No pickle is read, and no archive is unpacked to disk.
"""

import gzip
import math
import tarfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fastnt.data.beton import Images, Labels
from fastnt.data.mat5 import MatError, read_mat5
from fastnt.errors import UserError
from fastnt.files import DEFLATE

DIGITS_TEST = 360  # the last 360 of the 1,797 digits
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_RECORD = 1 + math.prod(_CIFAR_SHAPE)
_REMEDY = "fetch the official file again"


def broken(path: Path, why: str) -> UserError:
    """Return the error that says what is wrong with a source file."""
    return UserError(f"{path} cannot be used: {why}; {_REMEDY}")


def checked_labels(path: Path, labels: NDArray[np.integer], low: int, high: int) -> Labels:
    """Return labels as int64.

    Raises:
        UserError: a label lies outside [low, high]; the message names the first.
    """
    outside = np.flatnonzero((labels < low) | (labels > high))
    if outside.size:
        row = int(outside[0])
        raise broken(path, f"label {labels[row]} of sample {row} is not in {low} to {high}")
    return labels.astype(np.int64)


def _read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of uint8 items of the given shape, (n, *shape)."""
    dimensions = 1 + len(shape)
    try:
        with gzip.open(path) as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
                raise broken(path, f"it is not an IDX file of {dimensions}-dimensional bytes")
            count, *found = np.frombuffer(head, ">u4")[1:].tolist()
            if tuple(found) != shape or count == 0:
                raise broken(path, f"it holds {count} items of {tuple(found)}, not of {shape}")
            size = count * math.prod(shape)
            data = _read(file, size, path)
            surplus = file.read(1)  # reading to the end also verifies the CRC
    except (OSError, EOFError, zlib.error) as error:
        raise broken(path, f"it is cut short or damaged ({error})") from error
    if len(data) != size or surplus:
        raise broken(path, f"its size does not fit the {count} items that its header promises")
    return np.frombuffer(data, np.uint8).reshape(count, *shape)


def _read(file: IO[bytes] | gzip.GzipFile, size: int, path: Path) -> bytes | bytearray:
    """Read up to ``size`` bytes of a compressed file in pieces, so that memory grows with the data."""
    data = bytearray()
    if size <= path.stat().st_size * DEFLATE:
        while len(data) < size and (piece := file.read(min(1 << 20, size - len(data)))):
            data += piece
    return data


def read_mnist(images: Path, labels: Path) -> tuple[Images, Labels]:
    """Read a pair of gzipped IDX files, 28x28 images and digits."""
    pixels = _read_idx(images, (28, 28))[..., None]
    digits = checked_labels(labels, _read_idx(labels, ()), 0, 9)
    if len(pixels) != len(digits):
        raise broken(labels, f"it has {len(digits)} labels for the {len(pixels)} of {images.name}")
    return pixels, digits


def parse_cifar10(path: Path, data: bytes | bytearray) -> tuple[Images, Labels]:
    """Parse records of one label byte and 3 x 32 x 32 image bytes; ``path`` is for messages."""
    count, rest = divmod(len(data), _CIFAR_RECORD)
    if rest or count == 0:
        raise broken(path, f"its {len(data)} bytes are not whole {_CIFAR_RECORD}-byte records")
    records = np.frombuffer(data, np.uint8).reshape(count, _CIFAR_RECORD)
    images = records[:, 1:].reshape(count, *_CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return images, checked_labels(path, records[:, 0], 0, 9)


def read_tar_members(path: Path, names: list[str]) -> dict[str, bytes | bytearray]:
    """Return the contents of the named regular files in a .tar.gz, in whichever folder they lie."""
    found: dict[str, bytes | bytearray] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and name in names:
                    file = archive.extractfile(member)
                    assert file is not None  # a regular file has contents
                    found[name] = _read(file, member.size, path)
                    if len(found[name]) < member.size:
                        raise broken(path, f"its {name} promises {member.size:,} bytes")
    except UserError:
        raise
    except Exception as error:  # tarfile raises various errors on damaged bytes
        raise broken(path, f"it is cut short or damaged ({error})") from error
    if missing := [name for name in names if name not in found]:
        raise broken(path, f"it lacks {', '.join(missing)}")
    return found


def read_svhn(path: Path) -> tuple[Images, Labels]:
    """Read X (32, 32, 3, n) uint8 and y (n, 1) from a MATLAB 5 file; y is 1..10, 10 being the digit 0."""
    try:
        content = read_mat5(path, ("X", "y"))
    except MatError as error:
        raise broken(path, f"it is not a MATLAB 5 file or is damaged ({error})") from error
    if missing := [name for name in ("X", "y") if name not in content]:
        raise broken(path, f"it lacks the variable {' and '.join(missing)}")
    images, labels = content["X"], content["y"].reshape(-1)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise broken(path, f"X is {images.dtype} {images.shape}, not uint8 (32, 32, 3, n)")
    if labels.dtype.kind not in "ui" or len(labels) != images.shape[3] or len(labels) == 0:
        raise broken(path, f"it has {len(labels)} {labels.dtype} labels, {images.shape[3]} images")
    return images.transpose(3, 0, 1, 2), checked_labels(path, labels, 1, 10) % 10


def read_digits() -> tuple[Images, Labels]:
    """Return scikit-learn's 1,797 digits, 8x8, with their levels 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return images, digits.target.astype(np.int64)
