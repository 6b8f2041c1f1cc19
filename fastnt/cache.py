"""The cache folder: what fastnt keeps there, and how to empty it."""

import errno
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastnt.data.sources import SOURCES
from fastnt.errors import UserError
from fastnt.files import cache_dir, sweep

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_HEX = "[0-9a-f]"
# The patterns of everything that fastnt keeps in its cache folder. `remove` removes these and nothing
# else, since FASTNT_CACHE may name a folder that also holds files of the user's.
KEPT = {
    "data": (f"data/*-{12 * _HEX}",),
    "downloads": tuple(f"downloads/{name}" for name in SOURCES),
    "teachers": (f"teachers/*-{16 * _HEX}.safetensors",),
    "logits": (f"logits/*-{16 * _HEX}.safetensors",),
}


@dataclass(frozen=True)
class Kept:
    """A file or a folder that fastnt keeps in its cache folder."""

    kind: str  # data, downloads, teachers or logits
    path: Path
    bytes: int
    written: float  # seconds since 1970


def try_to_store(what: str, store: Callable[[], None]) -> bool:
    """Call ``store``; if the cache is read-only, print on stderr that ``what`` is not kept.

    Returns:
        Whether it was stored.

    Raises:
        UserError: storing failed for another reason.
    """
    try:
        store()
    except UserError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in _READ_ONLY:
            raise
        print(f"fastnt: {what} not kept for later runs: {error}", file=sys.stderr)
        return False
    return True


def sweep_cache() -> None:
    """Remove the temporary files that killed processes left anywhere in the cache folder."""
    for pattern in ("data/*", "downloads/*", "logits", "teachers"):
        for folder in cache_dir().glob(pattern):
            sweep(folder, shared=True)


def kept() -> list[Kept]:
    """Return what fastnt keeps in its cache folder, by kind and name."""
    found = []
    for kind, patterns in KEPT.items():
        for path in sorted(path for pattern in patterns for path in cache_dir().glob(pattern)):
            state = path.lstat()
            size = state.st_size
            if path.is_dir() and not path.is_symlink():
                size = sum(f.lstat().st_size for f in path.rglob("*") if not f.is_dir())
            found.append(Kept(kind, path, size, state.st_mtime))
    return found


def remove(things: Sequence[Kept]) -> int:
    """Remove what :func:`kept` found and return how many bytes that freed.

    Raises:
        UserError: something could not be removed.
    """
    freed, left = 0, []
    for thing in things:
        try:
            if thing.path.is_dir() and not thing.path.is_symlink():
                shutil.rmtree(thing.path)
            else:
                thing.path.unlink(missing_ok=True)
            freed += thing.bytes
        except OSError as error:  # another user's, in a cache that several share
            left.append(f"{error.filename or thing.path}: {error.strerror}")
    if left:
        others = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise UserError(
            f"freed {freed / 1e6:,.1f} MB, but cannot remove {left[0]}{others}; let the user who made "
            "it run fastnt prepare --clean"
        )
    return freed
