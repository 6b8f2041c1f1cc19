"""The cache folder: what fastnt keeps there, and how to empty it."""

import errno
import shutil
import sys
from collections.abc import Callable

from fastnt.data.sources import SOURCES
from fastnt.errors import UserError
from fastnt.files import cache_dir

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
# The patterns of everything that fastnt keeps in its cache folder. `clean` removes these and nothing
# else, since FASTNT_CACHE may name a folder that also holds files of the user's.
KEPT = ("data/*-????????????", *(f"downloads/{name}" for name in SOURCES), "logits/*", "teachers/*")


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


def clean() -> int:
    """Remove everything that fastnt keeps in its cache folder; return the number of bytes freed.

    Raises:
        UserError: something could not be removed.
    """
    freed = 0
    for path in sorted(found for pattern in KEPT for found in cache_dir().glob(pattern)):
        try:
            if path.is_dir() and not path.is_symlink():
                freed += sum(f.lstat().st_size for f in path.rglob("*") if not f.is_dir())
                shutil.rmtree(path)
            else:
                freed += path.lstat().st_size
                path.unlink()
        except OSError as error:
            raise UserError(f"cannot remove {path}: {error.strerror}; remove it by hand") from error
    return freed
