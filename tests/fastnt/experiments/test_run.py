"""A study trains each student once, as the pipeline does, and takes what another study trained."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastnt.errors import UserError
from fastnt.experiments.lab import Lab, StudySetup
from fastnt.experiments.results import load_study
from fastnt.experiments.run import Outcome
from fastnt.experiments.study import CLEAN, Setting
from fastnt.monitoring.display import Silent
from fastnt.training.evaluation import evaluate, label_loss
from fastnt.training.model import load_model
from fastnt.training.pipeline import InMemory, train_student

from .fixture_types import Conduct, MakeStudy, Points


def test_a_point_is_the_student_that_the_pipeline_trains(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    assert conduct() == Outcome(True, 6, 6, 6, [])
    results = load_study(studies / "small")
    lab = Lab(StudySetup(results.study, studies / "small"), Silent())
    for point in results.study.points()[:3]:
        (record,) = results.of(point.setting, [point.seed])
        student = lab.course.new_student(point.recipe)
        teaching = lab.course.teach([load_model(studies / "small" / "teacher.safetensors")])
        epochs = train_student(lab.course, teaching, student, point.recipe, InMemory())
        error = evaluate(student, lab.course.data.test, label_loss).error
        assert record["last_test_error"] == error
        assert record["last_test_wrong"] == round(error * 360)
        held_out = [epoch.validation_error for epoch in epochs]
        np.testing.assert_array_equal(record["epochs"]["validation_error"], held_out)
        assert record["best_epoch"] == int(np.argmin(held_out)) + 1
        assert record["best_held_out_error"] == min(held_out)
        assert record["last_held_out_loss"] == pytest.approx(epochs[-1].validation_loss, rel=1e-5)
        wrong = record["last_predictions"] != results.data["test_labels"]
        assert wrong.mean() == error


def test_the_best_epoch_is_that_of_the_lowest_held_out_error(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    # A rate at which the student gets worse again.
    conduct(small_study({"lr": 0.1, "epochs": 6, "lr_decay": 1.0}))
    records = load_study(studies / "small").records
    early = [record for record in records if record["best_epoch"] < 6]
    assert early
    for record in early:
        assert record["best_held_out_error"] <= record["last_held_out_error"]
        assert record["best_held_out_error"] == record["epochs"]["validation_error"].min()


def test_processes_give_the_same_points(conduct: Conduct, points: Points, tmp_path: Path):
    conduct(jobs=2)
    two = points()
    shutil.move(tmp_path / "studies", tmp_path / "two")
    conduct(jobs=1)
    assert points() == two


def test_what_another_study_trained_is_not_trained_again(
    conduct: Conduct, points: Points, small_study: MakeStudy
):
    conduct()
    before = points()
    assert conduct().trained == 0
    settings = (Setting("noiseless", {"alpha": 0.0}), Setting("strong", {"sigma": 0.6}))
    other = small_study(settings=settings, baseline="noiseless", primary=("strong",), seeds=3)
    assert conduct(other, folder="other") == Outcome(True, 2, 6, 6, [])  # the third seed's
    assert conduct(small_study(seeds=3)).trained == 1  # sigma 0.3 of the third seed
    assert before.items() <= points().items()


def test_two_settings_that_are_one_training_are_trained_once(
    conduct: Conduct, small_study: MakeStudy
):
    settings = (Setting("clean", CLEAN), Setting("no sigma", {"sigma": 0.0, "noise": "shared"}))
    assert conduct(small_study(settings=settings, primary=(), seeds=1)) == Outcome(
        True, 1, 1, 1, []
    )


def test_pictures_of_mixed_sizes_are_studied_in_the_size_that_the_recipe_says(
    conduct: Conduct, points: Points, studies: Path, small_study: MakeStudy, tmp_path: Path
):
    random = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "zoo" / "train" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (*random.integers(9, 20, 2), 3)
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(path)
    keys: list[set[str]] = []
    for size in (0, 8, 6):
        recipe = {"dataset": str(tmp_path / "zoo"), "image_size": size, "train_samples": 0}
        recipe |= {"epochs": 1, "student_network": "FC4-FC3", "teacher_network": "FC4-FC3"}
        study = small_study(recipe, seeds=1)
        if not size:
            with pytest.raises(UserError, match="image_size"):
                conduct(study, folder="0")
            continue
        assert conduct(study, folder=str(size)).whole
        (teacher,) = (studies / str(size)).glob("*.safetensors")
        assert load_model(teacher).shape == (size, size, 3)
        keys.append(set(points()) - set().union(*keys))
    assert [len(each) for each in keys] == [3, 3]
