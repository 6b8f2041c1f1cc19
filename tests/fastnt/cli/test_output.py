"""Whatever stdout and stderr can take, and whenever it is interrupted, it ends in plain words."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each starts a program
FASTNT = [sys.executable, "-m", "fastnt"]
TRAIN = ["train", "--runs-dir", "runs", "--run", "a", "--teacher-epochs", "1"]


def _run(
    *command: str, cwd: Path, encoding: str = "utf-8", prefix: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    return subprocess.run(
        ["bash", "-c", f'{prefix} "$@"', "bash", *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        encoding=encoding,
        errors="replace",
        timeout=120,
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_encoding_serves(encoding: str, tmp_path: Path, own_folder: Path) -> None:
    """A folder's name that the encoding lacks is written in escapes, in tables, lines and errors."""
    folder = shutil.move(own_folder, tmp_path / "网络-é")
    done = _run(*FASTNT, "recipe", "--dataset", str(folder), cwd=tmp_path, encoding=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "dataset = " in done.stdout
    done = _run(*FASTNT, "recipe", "--config", "网络.toml", cwd=tmp_path, encoding=encoding)
    assert done.returncode == 2
    assert done.stderr.startswith("fastnt: error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", [["recipe"], ["--help"]])
def test_a_full_disk_under_stdout_is_one_sentence(command: list[str], tmp_path: Path) -> None:
    done = _run(*FASTNT, *command, cwd=tmp_path, prefix="exec >/dev/full;")
    assert done.returncode == 2
    assert done.stderr == "fastnt: error: cannot write its output: No space left on device\n"


@pytest.mark.parametrize("prefix", ["exec >&-;", "exec >&- 2>&-;"])
def test_closed_outputs_serve(prefix: str, tmp_path: Path) -> None:
    done = _run(*FASTNT, "recipe", cwd=tmp_path, prefix=prefix)
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_reader_that_goes_away_ends_it_without_a_word(tmp_path: Path) -> None:
    script = '"$@" | head -c 1 > /dev/null; exit ${PIPESTATUS[0]}'
    command = ["bash", "-c", script, "bash", *FASTNT, "recipe"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 130)  # 0 where all fitted into the pipe
    assert done.stderr == ""


def test_a_reader_that_goes_away_while_it_trains_has_it_saved(tmp_path: Path) -> None:
    """As `fastnt train 2>&1 | head -1` would; the run goes on from there."""
    script = '"$@" 2>&1 >/dev/null | head -n 8 > /dev/null; exit ${PIPESTATUS[0]}'
    command = ["bash", "-c", script, "bash", *FASTNT, *TRAIN, "--epochs", "400"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr
    assert done.stderr == ""
    assert list((tmp_path / "runs/a/checkpoint").glob("*.safetensors"))


@pytest.mark.parametrize("module", ["fastnt.cli", "typer", "fastnt.cli.train", "numpy", "torch"])
def test_ctrl_c_while_it_is_imported_is_one_line(module: str, tmp_path: Path) -> None:
    interrupted = f"""
import importlib.abc, signal, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["fastnt", "train", "--dry-run"]
from fastnt.__main__ import main
main()
"""
    done = _run(sys.executable, "-c", interrupted, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (
        130,
        "",
        "fastnt: interrupted",
    )


def test_too_little_memory_for_a_tensor_is_one_sentence(tmp_path: Path) -> None:
    command = (*FASTNT, "bench", "--shape", "100000000x100000", "--mode", "loss", "--device", "cpu")
    done = _run(*command, cwd=tmp_path)  # 40 TB
    assert done.returncode == 2
    assert done.stderr.startswith("fastnt: error: there is too little memory (")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is Linux's")
def test_too_little_memory_for_the_imports_is_one_sentence(tmp_path: Path) -> None:
    done = _run(*FASTNT, "train", "--dry-run", cwd=tmp_path, prefix="ulimit -v 300000;")
    assert done.returncode == 2
    assert done.stderr.startswith("fastnt: error: there is too little memory (")
    assert done.stderr.count("\n") == 1
