"""Paths as users give them."""

import os
from pathlib import Path

from fastnt.errors import UserError


def is_text(name: str) -> bool:
    """Tell whether a name is UTF-8; safetensors opens no file of another name."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def check_folder_name(name: str, option: str, where: str) -> str:
    """Return a name that is one of a folder; ``option`` gave it, for a folder in ``where``.

    Raises:
        UserError: it is empty, or leads elsewhere.
    """
    if name in ("", "..") or Path(name).name != name:
        raise UserError(f"{option} is {name!r}; it must be the name of a folder in {where}")
    return name


def at_home(path: str | Path) -> Path:
    """Return a path with the home folder for a ``~`` at its beginning, if that is known."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path.expanduser raises there


def settled(path: Path) -> Path:
    """Return a path that ends in the real name, in the real folder: ``.`` and links become real paths."""
    real = real_path(path)
    is_settled = path.name == real.name and real_path(path.parent) == real.parent
    return path if is_settled else real


def real_path(path: Path) -> Path:
    """Return the absolute path without symbolic links; one that leads round in a circle stays."""
    return Path(os.path.realpath(path))  # Path.resolve raises there
