"""Store images and labels that are in memory as files, which ``fastnt.data.own`` can read."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastnt.errors import UserError

Pair = tuple[Any, Any] | list[Any]  # images and labels: arrays or tensors


@contextmanager
def located(data: str | Path | Pair, test: Pair | None) -> Iterator[str]:
    """Yield the name or path of the data; arrays are stored in a temporary folder during the block.

    Raises:
        UserError: they are not images and labels. A UserError of the block loses the temporary path.
    """
    pairs = {"": data} if test is None else {"": data, "test_": test}
    if isinstance(data, (str, Path)):
        if test is not None:
            raise UserError("test goes with images and labels; a data set has its own test files")
        yield str(data)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "arrays")  # this is the name of the data set
        folder.mkdir()
        for prefix, pair in pairs.items():
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise UserError(
                    f"{prefix}data is no pair; give (images, labels), or a path as text"
                )
            for name, values in zip(("images", "labels"), pair, strict=True):
                _save(folder / f"{prefix}{name}.npy", values)
        try:
            yield str(folder)
        except UserError as error:
            raise UserError(_of_arguments(str(error), folder)) from error


def _of_arguments(sentence: str, folder: Path) -> str:
    """Let a sentence about files speak of the arguments that were stored in them."""
    sentence = sentence.replace(f"{folder}{os.sep}", "")
    return re.sub(r"\b((test_)?(images|labels))\.npy", r"\1", sentence)


def _save(path: Path, values: Any) -> None:
    try:
        if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
            raise TypeError("some are masked: fill them, as with values.filled(0)")
        array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
        np.save(path, array, allow_pickle=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path.stem} are no array of numbers ({error}); give one") from error
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; make room there"
        ) from error
