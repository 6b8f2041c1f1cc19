"""Files are whole or absent."""

import errno
import hashlib
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fastnt.errors import UserError
from fastnt.files import atomic_path, cache_dir, locked, sha256_file, sweep, write_json, write_text


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.json"
    write_json(target, {"a": 1})
    assert target.read_text() == '{\n  "a": 1\n}\n'
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError("mine"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, failure: BaseException
) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(type(failure)), atomic_path(target) as path:
        path.write_text("half")
        raise failure
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    words = r"cannot write .*a\.txt: No space left.*free some space"
    with pytest.raises(UserError, match=words), atomic_path(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "runs" / "a.txt", "x")


def test_the_environment_moves_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTNT_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("FASTNT_CACHE")
    assert cache_dir().name == "fastnt"


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"fastnt" * 100_000)
    assert sha256_file(path) == hashlib.sha256(b"fastnt" * 100_000).hexdigest()


@pytest.mark.skipif(os.name != "posix", reason="umask")
def test_files_obey_the_umask(tmp_path: Path) -> None:
    for umask in (0o022, 0o077):
        path = tmp_path / f"{umask:o}"
        code = (
            f"import os; os.umask({umask}); from pathlib import Path; from fastnt.files import "
            f"write_text; write_text(Path({str(path)!r}), 'text')"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_flush_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    write_text(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"


def test_a_disk_that_fails_to_flush_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"cannot write .*Input/output error"):
        write_text(tmp_path / "a", "text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="flock")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl

    def refuse(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "a" / ".lock"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with locked(path), pytest.raises(UserError, match="busy"), locked(path, "busy"):
                pass
            assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_killed_processes_are_swept(tmp_path: Path) -> None:
    old, new = tmp_path / ".a.00000000-1.x.part", tmp_path / ".b.00000000-1.y.part"
    others = [tmp_path / ".Unconfirmed 7.part", tmp_path / "c.part"]
    for path in (old, new, *others):
        path.touch()
    for path in (old, *others):
        os.utime(path, (0, 0))
    code = (
        "import sys, os, signal; from pathlib import Path; from fastnt.files import atomic_path\n"
        f"with atomic_path(Path({str(tmp_path / 'd')!r})):\n"
        "    print(flush=True); sys.stdin.read(1); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        writer.stdout.readline()  # it writes
        write_text(tmp_path / "a", "text")
        assert [path.name for path in tmp_path.glob(".d.*.part")]
        writer.stdin.write(b".")
    write_text(tmp_path / "a", "text")  # it was killed
    kept = {tmp_path / "a", *others}
    assert set(tmp_path.iterdir()) == {new, *kept}
    sweep(tmp_path)
    assert set(tmp_path.iterdir()) == kept


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_folder_that_cannot_be_made_is_not_waited_for() -> None:
    with pytest.raises(UserError, match="cannot write /proc/nope"), locked(Path("/proc/nope/a")):
        pass
