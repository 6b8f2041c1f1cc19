"""Where it runs: homes that are missing or read-only, others' files, paths that lead nowhere."""

import errno
import io
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import torch

import fastnt
from fastnt.cli import main
from fastnt.data.prepare import prepare
from fastnt.errors import UserError
from fastnt.files import cache_dir

QUICK = ("--epochs", "1", "--teacher-epochs", "1", "--set", "validation_per_class=2", "--quiet")


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    stderr = io.StringIO()  # which takes names that are no text, as the program's does
    with redirect_stderr(stderr), pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    error = stderr.getvalue()
    assert exit_.value.code == 2, error
    assert error.startswith("fastnt: error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and a user id without an entry."""

    def unknown(number: int) -> Any:
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "FASTNT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("pwd.getpwnam", unknown)


@pytest.mark.parametrize(
    "arguments",
    [["prepare", "--list"], ["prepare", "--clean"], ["prepare", "--dataset", "digits"], ["train"]],
)
def test_without_a_home_the_cache_has_to_be_named(
    arguments: list[str], homeless: None, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "let FASTNT_CACHE name one for the cache" in _refused(capsys, *arguments)
    assert not (tmp_path / "~").exists()
    monkeypatch.setenv("FASTNT_CACHE", str(tmp_path / "c"))
    assert cache_dir() == tmp_path / "c"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--dataset", "~nobody-here/x"],
        ["train", "--teacher", "~nobody-here/x.safetensors"],
        ["train", "--dataset", "mnist", "--data-dir", "~nobody-here"],
        ["prepare", "--dataset", "~nobody-here/x"],
    ],
)
def test_the_home_of_nobody_is_a_path_like_any_other(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    _refused(capsys, *arguments)
    with pytest.raises(UserError):
        fastnt.distill("FC10", "~nobody-here/x.safetensors", "digits", progress=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--dataset", "BAD"],
        ["train", "--dataset", "mnist", "--data-dir", "BAD"],
        ["train", "--config", "BAD"],
        ["train", "--teacher", "BAD"],
        ["train", "--runs-dir", "BAD"],
        ["train", "--resume", "--runs-dir", "BAD"],
        ["report", "BAD"],
        ["evaluate", "BAD"],
        ["export", "BAD", "--format", "pt2"],
        ["predict", "BAD", "x.png"],
        ["prepare", "--dataset", "BAD"],
        ["recipe", "--config", "BAD"],
        ["study", "BAD"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    "bad", ["loop", "a\0b", "a\udcffb", "x" * 300], ids=["loop", "NUL", "bytes", "long"]
)
def test_a_path_that_leads_nowhere_is_one_sentence(
    bad: str, arguments: list[str], capsys: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """A circle of symbolic links, a NUL, bytes that are no UTF-8, too long a name."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    words = [bad if word == "BAD" else word for word in arguments]
    _refused(capsys, *words)


def test_a_cache_whose_name_is_no_text_is_refused(monkeypatch: Any) -> None:
    """safetensors opens no file there."""
    monkeypatch.setenv("FASTNT_CACHE", "c\udcffche")
    with pytest.raises(UserError, match=r"FASTNT_CACHE is .* not UTF-8; name another folder"):
        cache_dir()


def test_other_users_files_are_left_and_named(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may remove everything, so the system's answer is given by hand."""
    mine, theirs = (f"mnist-{digit * 16}.safetensors" for digit in "ab")
    for name in (f"logits/{theirs}", f"teachers/{mine}"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("x" * 1000)
    unlink = Path.unlink

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == theirs:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        unlink(path, *arguments, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    sentence = _refused(capsys, "prepare", "--clean", "--yes")
    assert "cannot remove" in sentence
    assert f"{theirs}: Permission denied; let the user who made it" in sentence
    assert not (cache / "teachers" / mine).exists()


def test_a_run_that_may_only_be_read_is_reported(
    tmp_path: Path, own_folder: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["train", "--dataset", str(own_folder), "--run", "a", *QUICK])
    make = tempfile.mkstemp

    def refuse(*arguments: Any, **options: Any) -> Any:
        if "runs" in str(options["dir"]):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return make(*arguments, **options)

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    sentence = _refused(capsys, "report", "runs/a")
    assert "name another picture with --output FILE.png" in sentence
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["report", "runs/a", "--output", "mine.png"])
    assert Path("mine.png").exists()


@pytest.mark.slow
def test_a_home_that_cannot_be_written_says_nothing(tmp_path: Path, own_folder: Path) -> None:
    """Matplotlib wants to keep its fonts there."""
    (tmp_path / "home").write_text("no folder")
    command = ["train", "--dataset", str(own_folder), *QUICK]
    environment = os.environ | {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": ""}
    done = subprocess.run(
        [sys.executable, "-m", "fastnt", *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken",
    [{"PATH": "/nowhere", "CXX": ""}, {"TORCHINDUCTOR_CACHE_DIR": "/proc/nowhere"}],
    ids=lambda names: next(iter(names)),
)
def test_a_compiled_loss_without_a_compiler_is_a_value_error(broken: dict[str, str]) -> None:
    script = """
import torch, fastnt
try:
    fastnt.noisy_l2_loss(torch.ones(2, 3), torch.ones(2, 3), alpha=1, sigma=1, seed=0, impl="compile")
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | broken, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("impl='compile' cannot compile here (")
    assert "use impl='auto'" in done.stdout


def test_temporary_files_of_killed_processes_leave_every_cache(cache: Path) -> None:
    prepare("digits", progress=False)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    from fastnt.files import _here

    left = []
    for folder in ("logits", "teachers", "downloads/mnist", next((cache / "data").iterdir()).name):
        place = cache / ("data" if "-" in folder else "") / folder
        place.mkdir(parents=True, exist_ok=True)
        left.append(place / f".x.{_here()}-{ended.pid}.abc.part")
        left[-1].touch()
        left.append(place / f".x.{_here()}-{os.getpid()}.abc.part")  # it is being written
        left[-1].touch()
    fastnt.distill("FC10", _teacher(), "digits", epochs=1, train_samples=50, progress=False)
    assert [path.exists() for path in left] == [False, True] * 4


def _teacher() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
