"""The command line as a user meets it."""

import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import fastnt
from fastnt.cli import main
from fastnt.doctor import diagnose
from fastnt.errors import UserError
from fastnt.runs.folder import RunFolder
from fastnt.runs.run import Run

TINY = ("--epochs", "1", "--teacher-epochs", "1", "--train-samples", "100")


def _run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 0


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_train_ends_with_a_table_and_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    _run("train", *TINY)
    output = capsys.readouterr()
    (folder,) = Path("runs").glob("digits-*")
    for words in ("teacher", "student, clean", "student, noisy", "test error", str(folder)):
        assert words in output.out
    assert "student, noisy: epoch 1/1, held-out error" in output.err
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_json_prints_the_summary_alone(capsys: pytest.CaptureFixture[str]) -> None:
    _run("train", "--json", "--run", "a", *TINY)
    output = capsys.readouterr()
    assert json.loads(output.out) == RunFolder(Path("runs/a")).summary()
    assert output.err == ""


def test_quiet_prints_the_table_alone(capsys: pytest.CaptureFixture[str]) -> None:
    _run("train", "--quiet", *TINY)
    output = capsys.readouterr()
    assert "test error" in output.out
    assert output.err == ""


def test_profile_shows_where_a_step_goes_and_changes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = ("--epochs", "8", "--teacher-epochs", "1", "--train-samples", "400", "--quiet")
    _run("train", "--run", "plain", *many)
    _run("train", "--run", "a", "--profile", *many)
    output = capsys.readouterr().out
    for part in ("data", "forward", "targets and loss", "backward", "optimizer", "whole step"):
        assert part in output
    names = {
        e.get("name") for e in json.loads(Path("runs/a/trace.json").read_text())["traceEvents"]
    }
    assert {"data", "forward", "backward", "optimizer"} <= names
    weights = "noisy.safetensors"
    assert Path("runs/a", weights).read_bytes() == Path("runs/plain", weights).read_bytes()


@pytest.mark.parametrize("given", [True, False])
def test_no_graph_reaches_the_training_and_its_resumption(
    given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Run] = []

    def execute(self: Run, draw: Any) -> None:
        runs.append(self)
        raise UserError("this is enough")

    monkeypatch.setattr(Run, "execute", execute)
    with pytest.raises(SystemExit):
        main(["train", *["--no-graph"][: int(given)], *TINY])
    (run,) = runs
    assert run.compute.graph != given
    assert ("--no-graph" in run.flags) == given


def test_the_config_of_a_run_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    _run("train", "--run", "a", "--quiet", "--seed", "5", "--set", "lr_decay=0.8", *TINY)
    _run("train", "--run", "b", "--quiet", "--config", "runs/a/config.json")
    a, b = (Path("runs", name, "summary.json").read_text() for name in "ab")
    assert a == b
    assert Path("runs/a/config.json").read_text() == Path("runs/b/config.json").read_text()


@pytest.mark.parametrize("name", ["mnist", "svhn", "cifar10"])
def test_every_data_set_trains_from_its_official_files(
    name: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(f"{name}_folder")
    held = "validation_per_class=2,1" if name == "svhn" else "validation=20"
    sizes = ("--epochs", "1", "--teacher-epochs", "1", "--train-samples", "64")
    arguments = ("--dataset", name, "--data-dir", str(folder), "--set", held, *sizes)
    # The paper's networks, but a smaller teacher: NIN needs a quarter of a gigaflop an image.
    small = () if name == "mnist" else ("--set", "teacher_network=C5(S1P2)@8-MP2(S2)-FC10")
    _run("train", "--run", name, "--json", *arguments, *small)
    summary = json.loads(capsys.readouterr().out)
    assert summary["dataset"] == name
    assert not summary["official"]
    _run("evaluate", f"runs/{name}", "--json")
    again = json.loads(capsys.readouterr().out)
    assert again == {phase: {"test_error": summary[phase]["test_error"]} for phase in again}
    assert set(again) == {"teacher", "clean", "noisy"}


def test_prepare_makes_lists_and_cleans(
    mnist_folder: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _run("prepare", "--dataset", "mnist", "--data-dir", str(mnist_folder), "--quiet")
    for kind, key in (("teachers", "0123456789abcdef"), ("logits", "fedcba9876543210")):
        (cache / kind).mkdir()
        (cache / kind / f"mnist-{key}.safetensors").write_bytes(bytes(2_500_000))
    _run("prepare", "--list")
    listed = capsys.readouterr().out
    for words in ("mnist", "mnist-0123456789abcdef", "mnist-fedcba9876543210", "2.5"):
        assert words in listed
    with pytest.raises(SystemExit, match="2"):
        main(["prepare", "--clean"])
    assert "give --yes" in capsys.readouterr().err
    for answer, left in (("n", True), ("y", False)):
        terminal = io.StringIO(f"{answer}\n")
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(SystemExit):
            main(["prepare", "--clean"])
        output = capsys.readouterr().out
        for words in ("mnist-0123456789abcdef", str(cache), "Delete all of it?"):
            assert words in output
        assert bool(list(cache.rglob("*.beton"))) == left
        assert ("freed" in output) != left
    _run("prepare", "--clean", "--yes")
    assert "nothing is in" in capsys.readouterr().out


def test_doctor_names_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    _run("doctor")
    output = capsys.readouterr().out
    for part in ("torch", "GPU", "Triton", "FFCV", "memory", "data", "export", "wandb", "ray"):
        assert part in output


@pytest.mark.parametrize("cache", ["/etc/passwd", "/etc/passwd/none"])
def test_doctor_sees_that_the_cache_cannot_be_written(
    cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTNT_CACHE", cache)
    (disk,) = (found for found in diagnose() if found.what == "disk")
    assert not disk.present
    assert "let FASTNT_CACHE name another folder" in disk.detail


def test_doctor_names_what_an_extra_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    (extra,) = (finding for finding in diagnose() if finding.what == "export")
    assert not extra.present
    assert "pip install onnxscript`" in extra.detail


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    _run()
    everything = capsys.readouterr().out
    assert all(word in everything for word in ("train", "prepare", "evaluate", "doctor"))
    _run("--version")
    assert capsys.readouterr().out.strip() == f"fastnt {fastnt.__version__}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_training_is_saved_and_exits_with_130(
    tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.signal(
        number, signal.SIG_DFL
    )  # under nohup the tests, and what they start, ignore it
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "fastnt",
                "train",
                "--run",
                "a",
                "--epochs",
                "100000",
                *TINY[2:],
            ],
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    finally:
        signal.signal(number, before)
    metrics = tmp_path / "runs" / "a" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and "clean" in metrics.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    *_, last = stderr.splitlines()
    assert re.fullmatch(
        r"fastnt: interrupted: (clean|noisy) is saved in epoch \d+ after \d+ batch(es)?; "
        "go on with fastnt train --resume --run a",
        last,
    )
    folder = RunFolder(tmp_path / "runs" / "a")
    saved = folder.checkpoints.newest()
    assert saved is not None
    assert list(saved.records) == folder.metrics.read()
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob(".lock"))
