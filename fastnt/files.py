"""Files that are whole or absent: atomic writes, hashes and the cache folder."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from fastnt.errors import UserError


def cache_dir() -> Path:
    """Folder for downloads, .beton files, logits and teachers; ``FASTNT_CACHE`` moves it."""
    moved = os.environ.get("FASTNT_CACHE")
    return Path(moved).expanduser() if moved else platformdirs.user_cache_path("fastnt")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that becomes ``target`` only when the block succeeds.

    The file is flushed to disk before it is renamed, so that after a crash ``target`` is either the
    old file or the whole new one. When the block fails, the temporary file is removed.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}.", suffix=".part"
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_error(target: Path, error: OSError) -> UserError:
    """Say why ``target`` could not be written and how to mend it."""
    remedy = {
        errno.ENOSPC: "free some space",
        errno.EFBIG: "raise the file size limit",
        errno.EDQUOT: "free some of your quota",
        errno.EACCES: "choose a folder you may write to",
        errno.EROFS: "choose a folder you may write to",
    }.get(error.errno or 0, "check the folder")
    return UserError(
        f"cannot write {target}: {error.strerror or error}; {remedy} "
        "(FASTNT_CACHE moves the cache, --runs-dir the runs)"
    )


def write_text(target: Path, text: str) -> None:
    """Write ``text`` to ``target`` atomically (UTF-8)."""
    with atomic_path(target) as path:
        path.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` to ``target`` atomically as indented JSON."""
    write_text(target, json.dumps(value, indent=2) + "\n")


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
