"""No file runs code: what it names is called only when the user typed it or trusts the file."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fastnt
from fastnt.cli import main
from fastnt.data.preprocess import Preprocess
from fastnt.errors import UserError
from fastnt.recipe_files import load_recipe
from fastnt.report.curves import plot_curves
from fastnt.training.model import Model
from fastnt.trust import Trust

SHAPE = (8, 8, 1)
EFFECT = Path("it-ran")
TINY = ("--epochs", "1", "--teacher-epochs", "1", "--train-samples", "100", "--quiet")
# Imported from a folder that the user downloaded: its import and its function both leave a mark.
MODULE = """
import pathlib
from shutil import rmtree
from os import system
from torch import nn
pathlib.Path("it-ran").touch()

def make(num_classes):
    pathlib.Path("it-ran").touch()
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

class Net(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))

class Plain:
    make = staticmethod(make)

answer = 42
"""


@pytest.fixture(autouse=True)
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder is one that somebody sent, with a conftest.py of its own."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    Path("sent.py").write_text(MODULE)
    Path("reexports.py").write_text("from sent import make, Net, rmtree\n")
    before = set(sys.modules)
    yield folder
    for name in ("sent", "reexports"):
        if name not in before:
            sys.modules.pop(name, None)


def _forged(path: Path, name: str = "sent:make") -> Path:
    """A whole file with sound weights of a network that ``name`` makes."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model = Model(layers, Preprocess("none", SHAPE), 10)
    model.notation = name
    model.save(path)
    return path


def _forged_run() -> Path:
    """A run's folder in which all networks and the recipe name the function."""
    with pytest.raises(SystemExit):
        main(["train", "--run", "a", *TINY, "--student", "FC8-FC10"])
    run = Path("runs/a")
    for name in ("teacher", "clean", "noisy"):
        _forged(run / f"{name}.safetensors")
    config = json.loads((run / "config.json").read_text()) | {"student_network": "sent:make"}
    (run / "config.json").write_text(json.dumps(config))
    return run


def _main(*arguments: object) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert exit_.value.code == 0


def _config(**values: str) -> Path:
    path = Path("sent.toml")
    path.write_text("".join(f'{key} = "{value}"\n' for key, value in values.items()))
    return path


def _layers() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def _load_student(**trust: Any) -> None:
    fastnt.load_student(_forged(Path("a.safetensors")), **trust)


def _load_student_of_a_run(**trust: Any) -> None:
    fastnt.load_student(_forged_run(), **trust)


def _distill(**trust: Any) -> None:
    teacher = _forged(Path("a.safetensors"))
    small = {"epochs": 1, "train_samples": 100, "device": "cpu", "progress": False}
    fastnt.distill(_layers(), str(teacher), "digits", **small, **trust)


def _flags(trust_code: bool = False) -> tuple[str, ...]:
    return ("--trust-code",) if trust_code else ()


def _evaluate(**trust: bool) -> None:
    _main("evaluate", _forged_run(), *_flags(**trust))


def _export(**trust: bool) -> None:
    _main("export", _forged_run(), "--format", "safetensors", *_flags(**trust))


def _predict(**trust: bool) -> None:
    np.save("image.npy", np.zeros(SHAPE, np.uint8))
    _main("predict", _forged_run(), "image.npy", *_flags(**trust))


def _teacher(**trust: bool) -> None:
    _main("train", *TINY, "--teacher", _forged(Path("a.safetensors")), *_flags(**trust))


def _config_student(**trust: bool) -> None:
    _main("train", *TINY, "--config", _config(student_network="sent:make"), *_flags(**trust))


def _config_teacher_network(**trust: bool) -> None:
    _main("train", *TINY, "--config", _config(teacher_network="sent:make"), *_flags(**trust))


def _config_teacher(**trust: bool) -> None:
    _main("train", *TINY, "--config", _config(teacher="sent:make"), *_flags(**trust))


def _config_teacher_file(**trust: bool) -> None:
    teacher = _forged(Path("a.safetensors").absolute())
    _main("train", *TINY, "--config", _config(teacher=str(teacher)), *_flags(**trust))


def _config_of_a_run(**trust: bool) -> None:
    _main("train", *TINY, "--config", _forged_run(), *_flags(**trust))


def _stopped() -> Path:
    """A run that was stopped behind its trainings."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("fastnt.report.curves.plot_curves", killed)
        main(["train", "--run", "a", *TINY, "--student", "FC8-FC10"])
    return Path("runs/a")


def _resume_with_a_network(name: str, **trust: bool) -> None:
    _forged(_stopped() / f"{name}.safetensors")
    _main("train", "--quiet", "--resume", "--run", "a", *_flags(**trust))


def _resume_with_a_teacher(**trust: bool) -> None:
    _resume_with_a_network("teacher", **trust)


def _resume_with_a_student(**trust: bool) -> None:
    _resume_with_a_network("clean", **trust)


SMALL_RECIPE = "epochs = 1\nteacher_epochs = 1\ntrain_samples = 100\n"
STUDY = ("--seeds", "1", "--jobs", "1", "--quiet")


def _study_file(where: str, key: str, name: str = "sent:make") -> Path:
    """A study of two settings that names code in one of its tables."""
    tables = {"recipe": SMALL_RECIPE, "changes": "", "teachers": ""}
    tables[where] += f'{key} = "{name}"\n'
    teachers = f"[teachers.one]\n{tables['teachers']}" if tables["teachers"] else ""
    path = Path("sent.toml")
    path.write_text(
        f"name = 'sent'\nbaseline = 'clean'\n[recipe]\n{tables['recipe']}{teachers}"
        "[[settings]]\nname = 'clean'\n[settings.changes]\nalpha = 0\n"
        f"[[settings]]\nname = 'other'\n[settings.changes]\nsigma = 0.3\n{tables['changes']}"
    )
    return path


def _study_recipe(**trust: bool) -> None:
    _main("study", _study_file("recipe", "student_network"), *STUDY, *_flags(**trust))


def _study_setting(**trust: bool) -> None:
    _main("study", _study_file("changes", "student_network"), *STUDY, *_flags(**trust))


def _study_teacher(**trust: bool) -> None:
    _main("study", _study_file("teachers", "teacher"), *STUDY, *_flags(**trust))


def _study_teacher_file(**trust: bool) -> None:
    teacher = _forged(Path("a.safetensors").absolute())
    _main("study", _study_file("teachers", "teacher", str(teacher)), *STUDY, *_flags(**trust))


def _study_config(**trust: bool) -> None:
    config = _config(student_network="sent:make")
    small = ("--epochs", "1", "--set", "teacher_epochs=1", "--set", "train_samples=100")
    over = ("--over", "sigma=0,0.3")
    _main("study", "--config", config, *small, *over, *STUDY, *_flags(**trust))


def _study_that_was_begun(**trust: bool) -> None:
    folder = Path("studies/sent")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_study_file("recipe", "student_network"), folder / "study.toml")
    _main("study", folder, *STUDY, *_flags(**trust))


def _study_teacher_network(**trust: bool) -> None:
    _main("study", _study_file("teachers", "teacher_network"), *STUDY, *_flags(**trust))


def _study_recipe_teacher_network(**trust: bool) -> None:
    _main("study", _study_file("recipe", "teacher_network"), *STUDY, *_flags(**trust))


def _study_recipe_teacher(**trust: bool) -> None:
    _main("study", _study_file("recipe", "teacher"), *STUDY, *_flags(**trust))


SMALL_STUDY = ("--epochs", "1", "--set", "teacher_epochs=1", "--set", "train_samples=100")
SMALL_STUDY += ("--over", "sigma=0.3", *STUDY)


def _study_typed_teacher_file(**trust: bool) -> None:
    teacher = _forged(Path("a.safetensors"))
    _main("study", *SMALL_STUDY, "--teacher", teacher, *_flags(**trust))


def _study_config_of_a_run(**trust: bool) -> None:
    _main("study", "--config", _forged_run(), *SMALL_STUDY, *_flags(**trust))


def _study_with_a_teacher_in_its_folder(**trust: bool) -> None:
    folder = Path("studies/sent")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_study_file("recipe", "lr", "0.001"), folder / "study.toml")
    _forged(folder / "teacher.safetensors")
    _main("study", folder, *STUDY, *_flags(**trust))


def _teacher_that_was_set(**trust: bool) -> None:
    teacher = _forged(Path("a.safetensors").absolute())
    _main("train", *TINY, "--set", f"teacher={teacher}", *_flags(**trust))


def _one_of_two_teachers(**trust: bool) -> None:
    Model("FC10", Preprocess("none", SHAPE), 10).save("good.safetensors")
    both = ("--teacher", "good.safetensors", "--teacher", _forged(Path("a.safetensors")))
    _main("train", *TINY, *both, *_flags(**trust))


def _distill_of_two(**trust: Any) -> None:
    Model("FC10", Preprocess("none", SHAPE), 10).save("good.safetensors")
    both = ["good.safetensors", _forged(Path("a.safetensors"))]
    small = {"epochs": 1, "train_samples": 100, "device": "cpu", "progress": False}
    fastnt.distill(_layers(), both, "digits", **small, **trust)


def _load_teacher_of_a_run(**trust: Any) -> None:
    fastnt.load_student(_forged_run(), "teacher", **trust)


def _dry_run(**trust: bool) -> None:
    config = _config(student_network="sent:make")
    _main("train", "--dry-run", "--config", config, *TINY, *_flags(**trust))


def _resume(**trust: bool) -> None:
    _main("train", "--run", "a", *TINY, "--student", "sent:make")  # by whoever sends the folder
    EFFECT.unlink()
    Path("runs/a/summary.json").unlink()
    _main("train", "--quiet", "--resume", "--run", "a", *_flags(**trust))


ENTRANCES: list[Callable[..., None]] = [
    _load_student,
    _load_student_of_a_run,
    _distill,
    _evaluate,
    _export,
    _predict,
    _teacher,
    _config_student,
    _config_teacher_network,
    _config_teacher,
    _config_teacher_file,
    _config_of_a_run,
    _resume,
    _resume_with_a_teacher,
    _resume_with_a_student,
    _study_recipe,
    _study_setting,
    _study_teacher,
    _study_teacher_file,
    _study_config,
    _study_that_was_begun,
    _study_teacher_network,
    _study_recipe_teacher_network,
    _study_recipe_teacher,
    _study_typed_teacher_file,
    _study_config_of_a_run,
    _study_with_a_teacher_in_its_folder,
    _teacher_that_was_set,
    _one_of_two_teachers,
    _distill_of_two,
    _load_teacher_of_a_run,
    _dry_run,
]


@pytest.mark.parametrize("entrance", ENTRANCES, ids=lambda entrance: entrance.__name__.strip("_"))
def test_no_entrance_calls_what_a_file_names(
    entrance: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        entrance()
    except UserError as error:
        sentence = str(error)
    except AssertionError:
        sentence = capsys.readouterr().err
    assert "it would import sent and call make (sent:make)" in sentence
    assert "--trust-code" in sentence
    assert not EFFECT.exists()
    for folder in ("runs", "studies"):
        shutil.rmtree(folder, ignore_errors=True)
    entrance(trust_code=True)  # the same way
    assert EFFECT.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fastnt.cache:remove", "is in fastnt"),
        ("os:abort", "is in os"),
        ("shutil:rmtree", "is in shutil"),
        ("torch.hub:load", "is in torch"),
        ("sent:rmtree", "comes from shutil"),
        ("reexports:rmtree", "comes from shutil"),
        ("sent:system", "is neither a function nor a class of networks"),
        ("sent:Plain", "is neither a function nor a class of networks"),
        ("sent:Plain.make", "is not at its module's top level"),
        ("sent:pathlib.Path.unlink", "is not at its module's top level"),
        ("sent:answer", "is neither a function nor a class of networks"),
        ("sent:none", "sent has no none"),
    ],
)
def test_even_a_trusted_file_names_networks_alone(name: str, words: str, cache: Path) -> None:
    cache.mkdir()
    (cache / "teachers").mkdir()
    kept = cache / "teachers" / "a"
    kept.touch()
    path = _forged(Path("a.safetensors"), name)
    with pytest.raises(UserError) as error:
        fastnt.load_student(path, trust_code=True)
    assert words in str(error.value)
    assert name.partition(":")[0] in str(error.value)
    assert kept.exists()


@pytest.mark.parametrize("name", ["sent:make", "sent:Net", "reexports:make", "reexports:Net"])
def test_a_trusted_file_names_functions_and_classes_of_networks(name: str) -> None:
    path = _forged(Path("a.safetensors"), name)
    images = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    assert fastnt.load_student(path, trust_code=True)(images).shape == (2, 10)


def test_a_module_of_ones_own_needs_no_trust() -> None:
    loaded = fastnt.load_student(_forged(Path("a.safetensors")), network=_layers())
    assert loaded.notation == "sent:make"
    assert not EFFECT.exists()


def test_what_the_user_typed_is_called_as_it_is() -> None:
    path = _forged(Path("a.safetensors"))
    _main("train", "--run", "a", *TINY, "--student", "sent:Plain.make", "--teacher", "sent:make")
    EFFECT.unlink()
    # It is typed here, so the same name in a file is no stranger.
    _main("train", "--run", "b", *TINY, "--student", "sent:make", "--teacher", path)
    assert EFFECT.exists()
    # A flag takes the setup of what the recipe names.
    config = _config(student_network="sent:none", teacher_network="sent:none")
    typed = ("--student", "FC10", "--set", "teacher_network=sent:make")
    _main("train", "--run", "c", *TINY, "--config", config, *typed)


def test_a_recipe_is_read_without_trust_where_nothing_is_called(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _main("report", _forged_run())
    _main("study", "--dry-run", _study_file("recipe", "student_network"))
    _study_that_was_begun(trust_code=True)
    EFFECT.unlink()
    _forged(Path("studies/sent/teacher.safetensors"))
    sys.modules.pop("sent")
    assert fastnt.load_study("studies/sent").records
    _main("report", "studies/sent")
    _main("study", "--dry-run", "studies/sent")
    assert not EFFECT.exists()
    with pytest.raises(UserError, match="names code"):
        load_recipe(None, _config(student_network="sent:make"))
    assert load_recipe(None, Path("sent.toml"), trust=Trust(code=True))
    assert load_recipe(None, Path("sent.toml"), {"student_network": "sent:make"})
    # A teacher is given: the network of one that would be trained is never made.
    assert load_recipe(None, _config(teacher="a.safetensors", teacher_network="sent:make"))


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        (("--student", "sent:make"), True),
        (("--set", "teacher_network=sent:make"), True),
        (("--teacher", "sent:make"), True),
        (("--student", "sent:Plain.make"), True),  # no file may name it: it is typed again
        (("--teacher", "sent:Plain.make", "--teacher", "sent:make"), True),
        (("--student", "FC10"), False),
    ],
)
def test_the_command_for_resuming_carries_the_trust(
    own: tuple[str, ...],
    wanted: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr("fastnt.report.curves.plot_curves", interrupted)
        main(["train", "--run", "a", *TINY, *own])
    sentence = capsys.readouterr().err
    command = sentence[sentence.index("fastnt train --resume") :].split()
    assert ("--trust-code" in command) == wanted
    monkeypatch.setattr("fastnt.report.curves.plot_curves", plot_curves)
    _main(*command[1:], "--quiet")
    assert Path("runs/a/summary.json").exists()


def test_a_network_that_was_made_from_a_file_is_exported_without_calling_it_again() -> None:
    model = fastnt.load_student(_forged(Path("a.safetensors")), trust_code=True)
    EFFECT.unlink()
    fastnt.export(model, "b.safetensors", "safetensors")
    assert not EFFECT.exists()
    assert fastnt.load_student("b.safetensors", trust_code=True).notation == "sent:make"
