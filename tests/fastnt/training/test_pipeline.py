"""The pipeline: any number of students of one teacher, each a recipe."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastnt.data.prepare import prepare
from fastnt.errors import UserError
from fastnt.files import cache_dir
from fastnt.monitoring.display import Silent
from fastnt.monitoring.progress import EpochRecord
from fastnt.recipe_files import load_recipe
from fastnt.training.compute import Compute
from fastnt.training.pipeline import Course, InMemory, open_course, train_student
from fastnt.training.teachers import find_teachers
from fastnt.training.trainer import Trainer

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"epochs": 1, "teacher_epochs": 1, "train_samples": 100}


def _course(**values: Any) -> Course:
    recipe = load_recipe("digits", None, SMALL | values)
    return open_course(prepare("digits"), recipe, Compute(CPU), Silent())


def _teacher(**values: Any) -> dict[str, Any]:
    """What a teacher's training gives: its weights' digest and its logits, and the cache's names."""
    course = _course(**values)
    (teacher,) = teachers = find_teachers(course, [], InMemory())
    course.teach(teachers)
    names = {
        kind: {path.name for path in (cache_dir() / kind).glob("*.safetensors")}
        for kind in ("teachers", "logits")
    }
    return {"weights": teacher.digest()} | names


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ({"seed": 1}, True),
        ({"seed": 1, "teacher_seed": 0}, False),
        ({"batch_size": 32}, True),
        ({"batch_size": 32, "teacher_batch_size": 64}, False),
        ({"teacher_network": "FC16-FC10"}, True),
        ({"teacher_lr": 0.01}, True),
        ({"teacher_epochs": 2, "teacher_lr_decay": 0.5}, True),
        ({"preprocess": "pixel_mean"}, True),
        ({"train_samples": 90}, True),
        ({"mirror": True}, True),
        ({"crop": 1}, True),
        ({"epochs": 2, "lr": 0.1, "alpha": 0.1, "sigma": 0.1, "noise": "shared"}, False),
        ({"student_network": "FC5-FC10", "weight_decay": 0.1, "objective": "labels"}, False),
    ],
    ids=str,
)
def test_what_changes_a_teacher_changes_its_key(change: dict[str, Any], another: bool) -> None:
    first, second = _teacher(), _teacher(**change)
    assert (second["weights"] != first["weights"]) is another
    assert (len(second["teachers"]) == 2) is another


@pytest.mark.parametrize(
    "values",
    [
        {"objective": "labels"},
        {"objective": "kd", "alpha": 0},
        {"objective": "kd"},
        {"penalty": 0.18},
        {"weight_decay": 1.0},
    ],
    ids=str,
)
def test_each_objective_trains_another_student(values: dict[str, Any]) -> None:
    course, keeper = _course(), InMemory()
    teaching = course.teach(find_teachers(course, [], keeper))
    digests = set()
    for recipe in (course.recipe, load_recipe("digits", None, SMALL | values)):
        student = course.new_student(recipe)
        (record,) = train_student(course, teaching, student, recipe, keeper)
        digests.add(student.digest())
        assert 0 < record.train_loss < 1e4
    assert len(digests) == 2


def test_the_sweep_of_the_docs_trains_the_teacher_and_each_clean_student_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = Path(__file__).parents[3] / "docs" / "sweep.py"
    spec = importlib.util.spec_from_file_location("sweep", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    trained = []
    whole = InMemory.train

    def counted(self: InMemory, trainer: Trainer) -> Any:
        trained.append(trainer.schedule.phase)
        records: list[EpochRecord] = list(whole(self, trainer))
        return records

    monkeypatch.setattr(InMemory, "train", counted)
    errors = module.sweep(**SMALL)
    assert trained.count("teacher") == 1
    assert len(errors) == 12 == len(trained) - 1
    assert {sigma for _, sigma in errors} == {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}


@pytest.mark.parametrize("crop", [8, 9, 100])
def test_crops_that_would_leave_nothing_of_an_image_are_refused(crop: int) -> None:
    recipe = load_recipe("digits", None, SMALL | {"crop": crop})
    with pytest.raises(UserError, match=rf"crop is {crop}, .* set crop below 8"):
        open_course(prepare("digits"), recipe, Compute(CPU), Silent())


@pytest.mark.parametrize("change", ["the test set alone", "a gap", "too few images"])
def test_a_class_without_training_images_is_one_line(
    own_folder: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    labels = np.load(own_folder / "labels.npy")
    test_labels = np.load(own_folder / "test_labels.npy")
    values: dict[str, Any] = {}
    if change == "the test set alone":
        test_labels[0] = 3
        np.save(own_folder / "test_labels.npy", test_labels)
    elif change == "a gap":
        for prefix, found in (("", labels), ("test_", test_labels)):
            np.save(own_folder / f"{prefix}labels.npy", np.where(found == 2, 4, found))
    else:
        np.save(own_folder / "labels.npy", np.sort(labels))
        values = {"train_samples": 20}
    recipe = load_recipe(str(own_folder), None, values)
    dataset = prepare(str(own_folder), progress=False)
    open_course(dataset, recipe, Compute(CPU), Silent())
    (record,) = caplog.records
    missing = {"the test set alone": "3", "a gap": "2, 3", "too few images": "1, 2"}[change]
    assert f"no training image of mine is of class {missing}: a student" in record.getMessage()


def test_a_class_that_has_training_images_is_no_warning(
    own_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = load_recipe(str(own_folder))
    dataset = prepare(str(own_folder), progress=False)
    open_course(dataset, recipe, Compute(CPU), Silent())
    assert not caplog.records
