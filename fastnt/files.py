"""Files that are complete or absent: atomic writes, locks, hashes, and the cache folder."""

import errno
import hashlib
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import filelock

from fastnt.errors import UserError
from fastnt.paths import at_home, is_text, real_path

DEFLATE = 1032  # DEFLATE expands a byte to at most so many


def cache_dir() -> Path:
    """Return the folder for downloads, .beton files, logits and teachers; ``FASTNT_CACHE`` sets it."""
    moved = os.environ.get("FASTNT_CACHE")
    if moved:
        if not is_text(moved):
            raise UserError(f"FASTNT_CACHE is {moved!r}, which is not UTF-8; name another folder")
        return at_home(moved)
    import platformdirs  # a machine that sets FASTNT_CACHE can do without

    try:
        return platformdirs.user_cache_path("fastnt")
    except RuntimeError as error:
        raise UserError(
            "there is no home folder; let FASTNT_CACHE name one for the cache"
        ) from error


_UMASK = os.umask(0o022)  # reading the umask means setting it
os.umask(_UMASK)
# The errors of file systems that have no fsync or no locks.
_UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
_STALE = 3600.0  # seconds; a file that is being written changes more often than that


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``, which is renamed to ``target`` if the block succeeds.

    The file is flushed to disk before the rename, and the folder after it. After a crash, ``target`` is
    therefore either the old file or the complete new one. If the block fails, the temporary file is
    removed.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent, shared=True)
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}.{_here()}-{os.getpid()}.", suffix=".part"
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("r+b") as written:
            _flush(written.fileno())
        with suppress(PermissionError):  # some file systems have the same mode for all files
            temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(target)
        _flush_folder(target.parent)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _flush(handle: int) -> None:
    """Flush a file to disk, if the file system can."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise


def _flush_folder(folder: Path) -> None:
    """Flush a folder to disk after a rename, if the system can open folders."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _flush(handle)
    finally:
        os.close(handle)


class Busy(UserError):
    """Another process holds a lock."""


@contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` during the block; the system releases it when the process dies.

    If the file system has no locks, a file that contains the process's number serves as the lock.

    Args:
        path: the file. It is removed at the end, as are folders that were made for it and are empty.
        busy: the message of the error if another process holds the lock; None waits for that process.

    Raises:
        Busy: another process holds the lock.
        UserError: the file cannot be made.
    """
    lock: filelock.BaseFileLock = filelock.FileLock(path, fallback_to_soft=False)
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        for patience in reversed(range(100)):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=-1 if busy is None else 0)
                break
            except FileNotFoundError:  # the holder removed the folder, or it cannot be made
                if not patience:
                    raise
            except OSError as error:
                if error.errno not in _UNKNOWN or isinstance(lock, filelock.SoftFileLock):
                    raise
                lock = filelock.SoftFileLock(path.with_name(f"{path.name}.process"))
    except filelock.Timeout as error:
        raise Busy(busy or str(error)) from error
    except OSError as error:
        raise write_error(path.parent, error) from error
    try:
        yield
    finally:
        with suppress(OSError):  # on some systems an open file cannot be removed
            path.unlink()
        lock.release()
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def sweep(folder: Path, *, shared: bool = False) -> None:
    """Remove the temporary files that killed processes left.

    Other processes may be writing to a folder that is ``shared``. There, a file is removed only if its
    process ran on this machine and has ended, or if the file has not changed for an hour.
    """
    for path in folder.glob(".*.part"):
        made = re.search(r"\.([0-9a-f]{8})-(\d+)\.[^.]*\.part$", path.name)
        if made is None:  # another program's
            continue
        with suppress(OSError):  # another process removed it, or it belongs to another user
            old = path.lstat().st_mtime < time.time() - _STALE
            if not shared or old or _has_ended(machine=made[1], process=int(made[2])):
                path.unlink()


def _has_ended(machine: str, process: int) -> bool:
    """Tell whether the process that made a temporary file ran on this machine and has ended."""
    if machine != _here() or os.name != "posix":
        return False
    try:
        os.kill(process, 0)  # signal 0 only asks whether the process exists
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # the process is another user's
        pass
    return False


@lru_cache
def _here() -> str:
    """Return an identifier of this machine or container, within which process numbers are unique."""
    space = Path("/proc/self/ns/pid")
    number = space.stat().st_ino if space.exists() else 0
    return hashlib.sha256(f"{platform.node()} {number}".encode()).hexdigest()[:8]


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or has an object with a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("it names a key twice")
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return parse_json(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the folder") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it from a copy") from error


def write_error(target: Path, error: OSError) -> UserError:
    """Return the UserError that says why ``target`` could not be written, and how to mend it."""
    remedy = {
        errno.ENOSPC: "free some space",
        errno.EFBIG: "raise the file size limit",
        errno.EDQUOT: "free some of your quota",
        errno.EACCES: "choose a folder you may write to",
        errno.EROFS: "choose a folder you may write to",
    }.get(error.errno or 0, "check the folder")
    where = " (FASTNT_CACHE moves the cache)" if _is_in_cache(target) else ""
    return UserError(f"cannot write {target}: {error.strerror or error}; {remedy}{where}")


def _is_in_cache(path: Path) -> bool:
    try:
        return real_path(path).is_relative_to(real_path(cache_dir()))
    except UserError:  # there is no cache
        return False


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
