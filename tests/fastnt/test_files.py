"""Files are whole or absent."""

import errno
import hashlib
import os
import sys
from pathlib import Path

import pytest

from fastnt.errors import UserError
from fastnt.files import atomic_path, cache_dir, locked, sha256_file, write_json, write_text


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
def test_files_obey_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for umask in (0o022, 0o077):
        monkeypatch.setattr("fastnt.files._UMASK", umask)
        write_text(tmp_path / "a", "text")
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_folder_that_cannot_be_made_is_not_waited_for() -> None:
    with pytest.raises(UserError, match="cannot write /proc/nope"), locked(Path("/proc/nope/a")):
        pass
