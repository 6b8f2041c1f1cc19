"""The cache folder as a whole: what fastnt keeps there, and how it is emptied."""

import shutil

from fastnt.data.sources import SOURCES
from fastnt.errors import UserError
from fastnt.files import cache_dir

# The patterns of all that fastnt keeps in its cache folder. `clean` removes these and nothing else,
# since FASTNT_CACHE may name a folder that holds files of the user's too.
KEPT = ("data/*-????????????", *(f"downloads/{name}" for name in SOURCES), "logits/*", "teachers/*")


def clean() -> int:
    """Remove everything that fastnt keeps in its cache folder and return how many bytes that freed.

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
