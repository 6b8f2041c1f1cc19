"""Read .npy and .npz files. No pickle is read, and sizes that a file cannot hold are refused."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnt.errors import UserError
from fastnt.files import DEFLATE

_PIECE = 1 << 24


class _ObjectsError(Exception):
    """The array holds Python objects, which only unpickling could load."""


def open_npy(path: Path) -> NDArray[Any]:
    """Map a .npy file into memory.

    Raises:
        UserError: the file is no complete .npy file, or holds Python objects.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            _header(file)
            return np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # numpy raises various errors on damaged bytes
            raise _broken(str(path), error) from error


def npz_names(path: Path) -> list[str]:
    """Return the names of the arrays in a .npz file.

    Raises:
        UserError: the file is no .npz file.
        OSError: the file cannot be read.
    """
    with path.open("rb") as whole:
        try:
            with zipfile.ZipFile(whole) as archive:
                return [name.removesuffix(".npy") for name in archive.namelist()]
        except Exception as error:  # zipfile raises various errors on damaged bytes
            raise _broken(str(path), error, "np.savez") from error


def read_npz(path: Path, name: str) -> NDArray[Any]:
    """Read the array ``name`` of a .npz file.

    Raises:
        UserError: there is no such array, it is damaged, or it holds Python objects.
        OSError: the file cannot be read.
    """
    if name not in npz_names(path):
        raise UserError(f"{path} lacks the array {name}; save it with the others")
    with path.open("rb") as whole:
        try:
            with (
                zipfile.ZipFile(whole) as archive,
                archive.open(entry := _entry(archive, name)) as file,
            ):
                shape, fortran, dtype = _header(file)
                size = math.prod(shape) * dtype.itemsize
                if size > min(entry.compress_size, path.stat().st_size) * DEFLATE:
                    raise ValueError(f"its shape {shape} is more than it can hold")
                data = bytearray()
                while len(data) < size and (piece := file.read(min(_PIECE, size - len(data)))):
                    data += piece
                if len(data) < size or file.read(1):
                    raise ValueError(f"its size does not fit its shape {shape}")
                array = np.ndarray(shape, dtype, data, order="F" if fortran else "C")
        except Exception as error:
            raise _broken(f"{path}: {name}", error, "np.savez") from error
    return array


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Return the entry of an array, which zipfile would inflate at once in packings other than these."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"it is packed in a way ({entry.compress_type}) in which NumPy packs none")
    return entry


def _header(file: Any) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"]:
    """Return the shape of an array, whether it is in Fortran order, and its dtype."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise _ObjectsError
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    return shape, fortran, dtype


def _broken(origin: str, error: Exception, save: str = "np.save") -> UserError:
    if isinstance(error, _ObjectsError):
        return UserError(
            f"{origin} holds Python objects, which are never read: save one array of numbers, such as "
            "np.stack(list(array))"
        )
    why = str(error).partition("\n")[0]
    kind = "npz" if save == "np.savez" else "npy"
    return UserError(
        f"{origin} is not a whole .{kind} file of numbers ({why}); save it with {save}"
    )
