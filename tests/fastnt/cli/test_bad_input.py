"""Bad input: exit code 2, one sentence on stderr, no traceback, and nothing half-written."""

import errno
import gzip
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.io import savemat

from fastnt.cli import main
from fastnt.data.prepare import prepare
from fastnt.data.preprocess import Preprocess
from fastnt.training.model import Model

Fastnt = Callable[..., str]
TINY = ("--epochs", "1", "--teacher-epochs", "1", "--train-samples", "100", "--quiet")


@pytest.fixture
def refused(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Fastnt:
    """Run a command that must fail; return its sentence. No new file may be left behind."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        before = set(tmp_path.rglob("*"))
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        output = capfd.readouterr()
        assert exit_.value.code == 2
        assert output.out == ""
        assert output.err.startswith("fastnt: error: ")
        assert output.err.count("\n") == 1
        left = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
        assert not left
        return output.err

    return run


def _prepare(name: str, folder: Path) -> tuple[str, ...]:
    return "prepare", "--dataset", name, "--data-dir", str(folder), "--quiet"


def test_a_truncated_gz(refused: Fastnt, mnist_folder: Path) -> None:
    path = mnist_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    assert "train-images-idx3-ubyte.gz" in refused(*_prepare("mnist", mnist_folder))


def test_a_bin_of_the_wrong_size(refused: Fastnt, cifar10_folder: Path) -> None:
    path = cifar10_folder / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert "data_batch_3.bin" in refused(*_prepare("cifar10", cifar10_folder))


def test_a_mat_without_y(refused: Fastnt, svhn_folder: Path) -> None:
    images = np.zeros((32, 32, 3, 4), dtype=np.uint8)
    savemat(svhn_folder / "train_32x32.mat", {"X": images})
    sentence = refused(*_prepare("svhn", svhn_folder))
    assert "train_32x32.mat" in sentence
    assert "it lacks the variable y" in sentence


def test_a_label_out_of_range(refused: Fastnt, mnist_folder: Path) -> None:
    labels = np.full(50, 11, dtype=np.uint8)
    header = np.array([0x0801, 50], ">u4").tobytes()
    with gzip.open(mnist_folder / "t10k-labels-idx1-ubyte.gz", "wb") as file:
        file.write(header + labels.tobytes())
    sentence = refused(*_prepare("mnist", mnist_folder))
    assert "t10k-labels-idx1-ubyte.gz" in sentence
    assert "label 11" in sentence


def test_a_missing_member(refused: Fastnt, cifar10_folder: Path) -> None:
    (cifar10_folder / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    assert "lacks data_batch_4.bin" in refused(*_prepare("cifar10", cifar10_folder))


def test_an_empty_and_a_missing_directory(refused: Fastnt, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no files of mnist" in refused(*_prepare("mnist", tmp_path / "empty"))
    assert "is not a folder" in refused(*_prepare("mnist", tmp_path / "none"))


def test_a_beton_that_is_cut_short(refused: Fastnt, cache: Path, mnist_folder: Path) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(list(_prepare("mnist", mnist_folder)))
    (beton,) = cache.glob("data/mnist-*/train.beton")
    beton.write_bytes(beton.read_bytes()[:-1000])
    sentence = refused("train", "--dataset", "mnist", "--data-dir", mnist_folder, *TINY)
    assert "cut short" in sentence
    assert "delete" in sentence


def test_a_full_disk_while_preparing(
    refused: Fastnt, mnist_folder: Path, small_files: Callable[[int], None]
) -> None:
    small_files(1 << 20)
    sentence = refused(*_prepare("mnist", mnist_folder))
    assert "cannot write" in sentence
    assert "FASTNT_CACHE" in sentence


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_cache_that_may_only_be_read_serves(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    """Root may write everywhere, so the system's answer is given by hand."""
    monkeypatch.chdir(tmp_path)
    prepare("digits", progress=False)
    make = tempfile.mkstemp

    def refuse(*arguments: Any, **options: Any) -> Any:
        if str(options["dir"]).startswith(str(cache)):
            raise OSError(number, os.strerror(number))
        return make(*arguments, **options)

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--run", "a", "--quiet", "--epochs", "1", "--teacher-epochs", "1"])
    assert exit_.value.code == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    for line, what in zip(said, ("the teacher is", "the teacher's logits are"), strict=True):
        assert line.startswith(f"fastnt: {what} not kept for later runs: cannot write {cache}")
    assert Path("runs/a/summary.json").is_file()
    assert not list(cache.rglob("*.safetensors"))


def test_a_full_disk_while_training_leaves_whole_files_only(
    tmp_path: Path, small_files: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["prepare", "--dataset", "digits", "--quiet"])
    small_files(100_000)  # the teacher's weights are larger
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--runs-dir", str(tmp_path / "runs"), "--run", "a", *TINY])
    assert "cannot write" in capfd.readouterr().err
    left = {path.name for path in (tmp_path / "runs" / "a").iterdir()}
    assert left == {"config.json", "environment.json", "metrics.jsonl"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--alpha", "1.5"], "alpha is 1.5; it must be between 0 and 1"),
        (["--batch-size", "0"], "batch_size is 0; it must be at least 1"),
        (["--sigma", "-1"], "sigma is -1.0"),
        (["--epochs", "many"], "Invalid value for '--epochs': it must be a valid integer; see"),
        (["--alpha", "some"], "Invalid value for '--alpha': it must be a valid number; see"),
        (["--only", "b"], "for '--only': 'b' is not one of 'teacher', 'clean', 'noisy'; see"),
        (["--image-size", "9"], "set this value of the recipe by --set image_size=VALUE"),
        (["--teacher-lr=1"], "set this value of the recipe by --set teacher_lr=VALUE"),
        (["--set", "lr_decya=0.9"], "did you mean lr_decay?"),
        (["--set", "lr_decay"], "is not KEY=VALUE"),
        (["--dataset", "minst"], "did you mean mnist?"),
        (["--device", "tpu"], "Invalid value for '--device'"),
        (["--student", "FC800"], "end it with FC10"),
        (["--train-samples", "5000"], "the training split has"),
        (["--alhpa", "0.5"], "No such option: --alhpa"),
        (["--config", "none.toml"], "cannot read the recipe none.toml"),
        (["--data-dir", "."], "leave --data-dir out"),
        (["--seed", "-1"], "seed is -1"),
        (["--sigma", "1e39"], "sigma is 1e+39"),
        (["--student", "FC99999999999-FC10"], "cannot read 'FC99999999999'"),
        (["--epochs", "1", "--epochs", "7"], "--epochs is given twice"),
        (["--amp", "--no-amp"], "--amp/--no-amp is given twice"),
        (["--config", "a.toml", "--config", "b.toml"], "--config is given twice"),
        (["--epochs", "1", "--set", "epochs=7"], "epochs is given twice, once by --set epochs=7"),
        (["--set", "seed=1", "--set", "seed = 2"], "seed is given twice, once by --set seed = 2"),
        (["--student", "FC10", "--set", "student_network=FC10"], "student_network is given twice"),
        (["--teacher", "a:b", "--set", "teacher=c:d"], "teacher is given twice"),
        (["--dataset", "digits", "--set", "dataset=mnist"], "dataset is given twice"),
        (["--set", "crop=8"], "are 8 x 8: some would be shifted out of sight; set crop below 8"),
        (["--set", "crop=500"], "set crop below 8"),
        (["--run", "../x"], "must be the name of a folder"),
        (["--run", ""], "must be the name of a folder"),
        (["--run", "x" * 300], "File name too long"),
        (["--dry-run", "--json"], "--dry-run trains nothing; leave one out"),
        (["--dry-run", "--teacher", "none.safetensors"], "no model file at"),
    ],
)
def test_bad_options_of_train(refused: Fastnt, arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["prepare", "--dataset", "digits", "--quiet"])
    assert words in refused("train", "--quiet", *arguments)


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", '{"lr": 1, "lr": 2}'), ("a.toml", "lr=1\nlr=2")]
)
@pytest.mark.parametrize("command", ["train", "study"])
def test_a_key_that_a_file_has_twice(
    refused: Fastnt, tmp_path: Path, command: str, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    assert "is not a recipe" in refused(command, "--config", tmp_path / name)


def test_an_unknown_key_in_a_config_file(refused: Fastnt, tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text("sgima = 0.3\n")
    sentence = refused("train", "--config", config)
    assert "unknown recipe key 'sgima'" in sentence
    assert "did you mean sigma?" in sentence


def test_a_teacher_that_is_missing_or_not_safetensors(refused: Fastnt, tmp_path: Path) -> None:
    assert "no model file at" in refused("train", "--teacher", tmp_path / "none.safetensors")
    pickled = tmp_path / "teacher.pt"
    torch.save({"w": torch.zeros(3)}, pickled)
    assert "not a whole safetensors file" in refused("train", "--teacher", pickled)
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(3)}, foreign)
    assert "it has no description by fastnt" in refused("train", "--teacher", foreign)


def test_several_teachers_one_of_which_is_missing(refused: Fastnt, tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    Model("FC10", Preprocess("none", (8, 8, 1)), 10).save(good)
    missing = tmp_path / "none.safetensors"
    sentence = refused("train", "--teacher", good, "--teacher", missing)
    assert f"no model file at {missing}" in sentence


def test_a_run_folder_that_holds_another_run(refused: Fastnt, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["train", "--run", "a", "--runs-dir", str(tmp_path / "runs"), *TINY])
    before = {p: p.read_bytes() for p in (tmp_path / "runs" / "a").iterdir()}
    assert "already holds another run" in refused("train", "--run", "a", *TINY)
    assert {p: p.read_bytes() for p in (tmp_path / "runs" / "a").iterdir()} == before


def test_a_logits_table_of_another_teacher(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tables = []
    for seed in ("1", "2"):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["train", "--run", seed, "--seed", seed, *TINY])
        tables += [t for t in cache.glob("logits/*.safetensors") if t not in tables]
    shutil.copyfile(tables[0], tables[1])
    before = set(Path("runs").rglob("*"))
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--run", "3", "--seed", "2", *TINY])
    sentence = capfd.readouterr().err
    assert sentence.startswith("fastnt: error: ")
    assert "is of another teacher" in sentence
    new = {p.name for p in set(Path("runs").rglob("*")) - before}
    assert new == {"3", "config.json", "environment.json", "teacher.safetensors"}


def test_evaluate_wants_a_run(refused: Fastnt, tmp_path: Path) -> None:
    assert "holds no run" in refused("evaluate", tmp_path)
    assert "Missing argument" in refused("evaluate")


def test_unknown_commands_are_named(refused: Fastnt) -> None:
    assert "No such command 'trian'" in refused("trian")


def test_a_tilde_that_the_shell_leaves(
    refused: Fastnt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for arguments in (["--config=~/a.toml"], ["--set=dataset=~/a.toml"], ["--config", "~/a.toml"]):
        assert f"{tmp_path}/a.toml" in refused("train", *arguments)


def test_prepare_wants_one_thing_to_do(refused: Fastnt) -> None:
    assert "say one of" in refused("prepare")
    assert "unknown data set 'minst'" in refused("prepare", "--dataset", "minst")
