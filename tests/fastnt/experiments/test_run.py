"""A study is trained once, whoever trains it, however often it is stopped, and whatever it shares."""

import os
import pickle
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastnt.errors import Interrupted, UserError
from fastnt.experiments import lab as lab_module
from fastnt.experiments.begin import begin_study, join_again
from fastnt.experiments.lab import Lab, StudySetup
from fastnt.experiments.results import DATABASE, load_study
from fastnt.experiments.run import Outcome
from fastnt.experiments.store import Store
from fastnt.experiments.study import CLEAN, Setting, Study
from fastnt.experiments.study_files import read_study
from fastnt.files import locked
from fastnt.monitoring.display import Silent
from fastnt.recipe_keys import recipe_key
from fastnt.training.checkpoint import Checkpoints
from fastnt.training.compute import Compute
from fastnt.training.evaluation import evaluate, label_loss
from fastnt.training.model import load_model
from fastnt.training.pipeline import InMemory, train_student
from fastnt.training.step import TrainStep
from fastnt.training.trainer import Trainer
from fastnt.trust import Trust

Conduct = Callable[..., Outcome]
Points = Callable[..., dict[str, dict[str, Any]]]
MakeStudy = Callable[..., Study]


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


def test_a_stopped_point_goes_on_with_the_same_bits(
    conduct: Conduct,
    points: Points,
    studies: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    conduct()
    whole = points()
    shutil.move(studies, tmp_path / "whole")
    steps = 0
    take = TrainStep.__call__

    def stop_after_7(self: TrainStep, *arguments: Any) -> None:
        nonlocal steps
        take(self, *arguments)
        steps += 1
        if steps % 7 == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainStep, "__call__", stop_after_7)
    stopped = ""
    for stops in range(100):  # noqa: B007
        try:
            assert conduct().whole
        except Interrupted as stop:
            stopped = str(stop)
        else:
            break
    assert stops > 5
    assert "go on with fastnt study" in stopped
    assert points() == whole
    assert list((studies / "in-progress").glob("*")) == []


def test_a_damaged_checkpoint_costs_its_training_alone(
    conduct: Conduct, points: Points, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    conduct()
    whole = points()
    shutil.rmtree(studies)
    monkeypatch.setattr(Checkpoints, "due", True)
    with pytest.raises(Interrupted), monkeypatch.context() as patch:
        patch.setattr(lab_module, "train_student", _die_after(train_student))
        conduct()
    monkeypatch.undo()
    checkpoint = max((studies / "in-progress").glob("*/*.safetensors"))
    content = bytearray(checkpoint.read_bytes())
    content[-1] ^= 1
    checkpoint.write_bytes(content)
    monkeypatch.setenv("FASTNT_CACHE", str(tmp_path / "cache"))
    assert conduct().whole
    assert points() == whole


def _die_after(train: Callable[..., Any]) -> Callable[..., Any]:
    def dies(*arguments: Any, **options: Any) -> None:
        train(*arguments, **options)
        raise KeyboardInterrupt

    return dies


def test_a_budget_stops_and_the_next_goes_on(conduct: Conduct, points: Points):
    assert conduct(budget=0.0) == Outcome(False, 0, 0, 6, [])
    assert conduct() == Outcome(True, 6, 6, 6, [])


def test_a_budget_that_is_spent_in_a_training_stops_it(
    conduct: Conduct,
    points: Points,
    studies: Path,
    small_study: MakeStudy,
    monkeypatch: pytest.MonkeyPatch,
):
    take = TrainStep.__call__

    def slow(self: TrainStep, *arguments: Any) -> None:
        take(self, *arguments)
        time.sleep(0.1)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", slow)
        assert conduct(small_study(seeds=1), budget=0.3) == Outcome(False, 0, 0, 3, [])
    assert list((studies / "small" / "teacher-checkpoint").glob("*.safetensors"))
    assert conduct(small_study(seeds=1)) == Outcome(True, 3, 3, 3, [])
    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", slow)
        assert conduct(budget=0.3) == Outcome(False, 0, 3, 6, [])
    assert list((studies / "in-progress").glob("*/*.safetensors"))
    assert conduct() == Outcome(True, 3, 6, 6, [])


def test_a_budget_that_ends_with_the_last_point_leaves_a_whole_study(
    conduct: Conduct, small_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
):
    conduct(small_study(seeds=1))
    now = time.monotonic
    late = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now() + late)
    put = Store.put

    def put_and_be_late(self: Store, table: str, row: dict[str, Any]) -> None:
        nonlocal late
        put(self, table, row)
        if table == "points" and row["seed"] == 1 and "0.6" in row["recipe"]:
            late = 1000.0

    monkeypatch.setattr(Store, "put", put_and_be_late)
    assert conduct(budget=500.0) == Outcome(True, 3, 6, 6, [])
    assert late


def test_the_wait_for_another_processs_teacher_can_be_stopped(
    conduct: Conduct, studies: Path, small_study: MakeStudy, caplog: pytest.LogCaptureFixture
):
    begin_study(StudySetup(small_study(), studies / "small"))
    with locked(studies / "small" / ".teacher.lock"):
        assert conduct(budget=0.2) == Outcome(False, 0, 0, 6, [])
    assert caplog.text.count("another process is making the teacher") == 1
    assert conduct().whole


def test_a_lock_that_a_killed_process_left_binds_nobody(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    begin_study(StudySetup(small_study(), studies / "small"))
    (studies / "small" / ".teacher.lock").touch()
    assert conduct(small_study({"epochs": 2})).whole


def test_a_checkpoint_of_changed_code_is_refused_in_one_sentence(
    conduct: Conduct, studies: Path, small_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
):
    conduct(budget=0.0)
    assert (studies / "small" / "teacher-checkpoint").is_dir()

    def resume(self: Trainer, *arguments: Any) -> None:
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(Trainer, "resume", resume)
    with pytest.raises(
        UserError, match="whose code has changed since; restore the code, or delete"
    ):
        conduct()


def test_a_training_that_diverges_is_a_row_and_stops_no_other(
    conduct: Conduct, points: Points, studies: Path, small_study: MakeStudy
):
    settings = (Setting("clean", CLEAN), Setting("wild", {"lr": 1e30}), Setting("noisy"))
    wild = small_study(settings=settings, primary=("noisy",), seeds=1)
    finding = conduct(wild)
    assert (finding.whole, finding.trained) == (True, 2)
    (row,) = finding.failed
    assert "diverged" in row["error"]
    results = load_study(studies / "small")
    assert [record["setting"] for record in results.records] == ["clean", "noisy"]
    assert [row["setting"] for row in results.failed] == ["wild"]
    assert len(conduct(wild).failed) == 1  # it is tried again


def test_another_study_in_the_folder_is_refused_and_nothing_changes(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    conduct()
    before = (studies / "small" / "study.toml").read_bytes()
    with pytest.raises(UserError, match="holds another study: epochs is 3 in the study and 2 here"):
        conduct(small_study({"epochs": 2}))
    assert (studies / "small" / "study.toml").read_bytes() == before


def test_a_study_of_which_nothing_was_trained_is_begun_anew_with_other_values(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    with pytest.raises(UserError, match="10 logits are needed"):
        conduct(small_study({"student_network": "FC8-FC3"}, seeds=9))
    assert [path.name for path in (studies / "small").iterdir()] == ["study.toml"]
    other = small_study({"epochs": 2}, seeds=1)
    assert conduct(other).points == 3
    assert read_study(studies / "small" / "study.toml").points() == other.points()


def test_a_study_that_another_process_replaced_trains_nothing(
    studies: Path, small_study: MakeStudy
):
    one, other = (
        StudySetup(small_study({"epochs": epochs}), studies / "small") for epochs in (1, 2)
    )
    begin_study(one)
    begin_study(other)
    join_again(other)
    words = "holds another study: epochs is 2 in the study and 1 here"
    with pytest.raises(UserError, match=words):
        join_again(one)
    with locked(studies / "small" / ".teacher.lock"), pytest.raises(UserError, match=words):
        begin_study(one)


def test_seeds_that_another_process_left_out_meanwhile_are_there_again(
    studies: Path, small_study: MakeStudy
):
    many, few = (StudySetup(small_study(seeds=n), studies / "small") for n in (3, 1))
    begin_study(many)
    begin_study(few)  # nothing is trained yet: it replaces the file
    join_again(many)
    assert read_study(studies / "small" / "study.toml").seeds == 3


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


def test_a_study_file_that_was_edited_is_refused_by_the_point(conduct: Conduct, studies: Path):
    conduct()
    path = studies / "small" / "study.toml"
    path.write_text(path.read_text().replace("sigma = 0.3", "sigma = 0.4"))
    for use in (conduct, lambda: load_study(studies / "small")):
        with pytest.raises(UserError, match=r"study\.toml was changed since fastnt wrote it"):
            use()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("sha256")))
    with pytest.raises(UserError, match=r"setting 'sigma 0\.3', seed 0, .* study\.toml"):
        conduct(read_study(path))
    with pytest.raises(UserError, match=r"setting 'sigma 0\.3', seed 0, .* another recipe than"):
        load_study(studies / "small")


def test_a_study_that_would_go_on_on_another_device_is_refused(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
):
    conduct()
    describe = Compute.describe
    monkeypatch.setattr(Compute, "describe", lambda self: describe(self) | {"device": "cuda"})
    with pytest.raises(
        UserError, match=r"trained on cpu, and would go on on cuda; give --device cpu"
    ):
        conduct()


def _found(folder: Path) -> Any:
    """Everything that a study's page is made of."""
    results = load_study(folder)
    return (
        pickle.dumps(results.records),
        pickle.dumps((results.failed, results.data, results.teachers, results.networks)),
        results.study,
    )


@pytest.mark.parametrize("name", ["results.sqlite", "small/study.toml"])
def test_a_flipped_bit_of_a_study_is_found_or_says_nothing_else(
    conduct: Conduct, studies: Path, small_study: MakeStudy, name: str
):
    settings = (Setting("clean", CLEAN, paper=21.94), Setting("sigma 0.6", {"sigma": 0.6}))
    conduct(small_study({"epochs": 1}, settings=settings, seeds=1))
    path, before = studies / name, _found(studies / "small")
    whole = path.read_bytes()
    found = 0
    places = random.Random(0).sample(range(len(whole)), 120)
    for place in places:
        flipped = bytes([whole[place] ^ (1 << place % 8)])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        try:
            assert _found(studies / "small") == before
        except UserError:
            found += 1
    assert found > 8  # most of a small database is empty


def test_a_changed_number_in_the_database_is_found(conduct: Conduct, studies: Path):
    conduct()
    for column, value in (
        ("last_test_wrong", "last_test_wrong + 1"),
        ("best_held_out_error", "best_held_out_error * 1.001"),
        ("epochs", "replace(epochs, '0.', '1.')"),
        ("error", "'diverged'"),
        ("last_predictions", "zeroblob(9)"),
    ):
        whole = (studies / "results.sqlite").read_bytes()
        with closing(sqlite3.connect(studies / "results.sqlite")) as database, database:
            database.execute(f"UPDATE points SET {column} = {value} WHERE seed = 1")
        for use in (conduct, lambda: load_study(studies / "small")):
            with pytest.raises(
                UserError, match="the SHA-256 of 3 rows of the table points is another"
            ):
                use()
        (studies / "results.sqlite").write_bytes(whole)


def test_a_database_of_an_earlier_release_is_read_and_sealed_when_it_is_written(
    conduct: Conduct, studies: Path
):
    conduct()
    before = _found(studies / "small")
    with closing(sqlite3.connect(studies / "results.sqlite")) as database:
        sealed = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%sha256%'"
        tables = [name for (name,) in database.execute(sealed)]
        assert {"points", "study_points", "data", "teachers", "networks"} <= set(tables)
        for table in tables:
            database.execute(f"ALTER TABLE {table} DROP COLUMN sha256")
    assert _found(studies / "small") == before
    Store(studies / "results.sqlite").copy_to(studies / "copy.sqlite")
    with closing(sqlite3.connect(studies / "copy.sqlite")) as copy:
        assert copy.execute("SELECT count(*) FROM points WHERE length(sha256) = 64").fetchone() == (
            6,
        )


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "is missing, the teacher of students that are trained"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is no network that fastnt saved"),
    ],
)
def test_a_teacher_that_is_gone_is_not_replaced(
    conduct: Conduct, studies: Path, harm: Callable[[Path], None], message: str
):
    conduct()
    harm(studies / "small" / "teacher.safetensors")
    with pytest.raises(UserError, match=message):
        conduct()


def test_another_teacher_in_its_place_is_refused(conduct: Conduct, studies: Path):
    conduct()
    path = studies / "small" / "teacher.safetensors"
    teacher = load_model(path)
    with torch.no_grad():
        next(teacher.parameters())[0] += 1
    teacher.save(path)
    with pytest.raises(UserError, match="is another teacher than the one"):
        conduct()


def test_a_teacher_that_saw_the_judging_images_is_refused_with_their_number(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    conduct(small_study({"train_samples": 0, "validation": 100}, seeds=1))
    file = str(studies / "small" / "teacher.safetensors")
    given = small_study({"validation": 150}, teachers={"teacher": {"teacher": file}})
    with pytest.raises(UserError, match="trained on 50 of the held-out and 0 of the test images"):
        conduct(given, folder="given")
    assert not (studies / "given" / "teacher.safetensors").exists()
    test_images = load_model(Path(file))
    assert test_images.seen is not None
    test_images.seen.flags[-7:] = True
    test_images.save(file)
    again = small_study({"validation": 100}, teachers={"teacher": {"teacher": file}})
    with pytest.raises(UserError, match="0 of the held-out and 7 of the test images"):
        conduct(again, folder="again")


def test_a_teacher_of_unknown_images_is_used_and_said_to_be(
    conduct: Conduct, studies: Path, small_study: MakeStudy, tmp_path: Path
):
    conduct(small_study(seeds=1))
    teacher = load_model(studies / "small" / "teacher.safetensors")
    teacher.seen = None
    teacher.save(tmp_path / "mine.safetensors")
    shutil.rmtree(studies)
    teachers = {"teacher": {"teacher": str(tmp_path / "mine.safetensors")}}
    conduct(small_study(teachers=teachers, seeds=1), folder="given")
    (row,) = load_study(studies / "given").teachers.values()
    assert row["digest"] == teacher.digest()
    assert row["note"] == "The teacher's file does not say on which images it was trained."
    assert row["recipe"]["teacher"] == ["mine.safetensors"]  # and not where it was


def test_each_seed_has_its_own_teacher_where_they_vary(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    conduct(small_study(vary_teacher=True))
    results = load_study(studies / "small")
    assert set(results.teachers) == {"teacher-seed0", "teacher-seed1"}
    assert len({tuple(record["teachers"]) for record in results.records}) == 2


def test_several_teachers_teach_as_the_settings_say(
    conduct: Conduct, studies: Path, small_study: MakeStudy
):
    both = ("teacher", "second")
    settings = (
        Setting("one", CLEAN, teachers=("teacher",)),
        Setting("both", {**CLEAN, "combine": "geometric"}, teachers=both),
        Setting("noisy", {"teacher_alphas": (0.0, 0.5)}, teachers=both),
    )
    teachers = {"teacher": {}, "second": {"teacher_seed": 1}}
    study = small_study(
        settings=settings, baseline="one", primary=("both",), seeds=1, teachers=teachers
    )
    assert conduct(study).trained == 3
    records = load_study(studies / "small").records
    assert [len(record["teachers"]) for record in records] == [1, 2, 2]
    assert len({record["last_test_loss"] for record in records}) == 3


def test_the_teacher_is_described_by_what_it_answers(conduct: Conduct, studies: Path):
    conduct()
    results = load_study(studies / "small")
    (row,) = results.teachers.values()
    model = load_model(studies / "small" / "teacher.safetensors")
    data = Lab(StudySetup(results.study, studies / "small"), Silent()).course.data
    assert row["test_error"] == evaluate(model, data.test, label_loss).error
    assert row["held_out_error"] == evaluate(model, data.validation, label_loss).error
    assert (row["predictions"] != results.data["test_labels"]).sum() == row["test_wrong"]
    assert results.networks[model.notation]["multiplies"] == model.multiply_count


def test_a_teacher_that_was_trained_before_has_its_epochs(
    conduct: Conduct, studies: Path, small_study: MakeStudy, tmp_path: Path
):
    conduct(small_study({"teacher_epochs": 3}, seeds=1))
    (first,) = load_study(studies / "small").teachers.values()
    shutil.move(studies, tmp_path / "first")
    for _ in range(2):  # from the cache, and from the study's folder
        conduct(small_study({"teacher_epochs": 3}, seeds=1))
        (found,) = load_study(studies / "small").teachers.values()
        assert found["epochs"]["epoch"].tolist() == [1, 2, 3]
        for column, values in first["epochs"].items():  # times too: it was not trained again
            np.testing.assert_array_equal(found["epochs"][column], values)
        (studies / "results.sqlite").unlink()


def test_a_changed_constant_of_ones_own_student_is_noticed(
    conduct: Conduct,
    studies: Path,
    small_study: MakeStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "constant_net.py").write_text(
        "from torch import nn\nSCALE = 1.0\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n        self.fc = nn.Linear(64, num_classes)\n"
        "    def forward(self, x):\n        return SCALE * self.fc(x.flatten(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = small_study({"student_network": "constant_net:Net"}, seeds=1)
    trust = Trust(typed=frozenset(["constant_net:Net"]))
    assert conduct(own, trust=trust).trained == 3
    assert conduct(own, trust=trust).trained == 0
    # What was measured is this study's: in another one the same name may be another network.
    assert load_study(studies / "small").networks["constant_net:Net"]["parameters"] == 650
    names = {row["network"] for row in Store(studies / DATABASE).rows("SELECT * FROM networks")}
    assert names == {"digits-teacher", "constant_net:Net of small"}
    import constant_net  # type: ignore[import-not-found]

    monkeypatch.setattr(constant_net, "SCALE", 100.0)
    with pytest.raises(UserError, match="constant_net:Net computes something else"):
        conduct(own, trust=trust)


def test_the_key_of_a_point_names_content_and_no_place(
    conduct: Conduct, points: Points, studies: Path, tmp_path: Path
):
    conduct()
    keys = set(points())
    shutil.move(studies, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "cache")
    study = load_study(tmp_path / "elsewhere" / "small").study
    lab = Lab(StudySetup(study, tmp_path / "elsewhere" / "small"), Silent())
    assert {lab.key(point) for point in study.points()} == keys


def test_what_makes_a_key_stays_as_it_is(small_study: MakeStudy, tmp_path: Path):
    """Points that were stored years ago are found again: none of these may change unseen."""
    lab = Lab(StudySetup(small_study(), tmp_path / "small"), Silent())
    assert lab.course.data.digest == KNOWN["data"]
    assert lab.course.new_student(lab.study.recipe).digest() == KNOWN["untrained_student"]
    assert lab.course.compute.describe() == {
        "device": "cpu",
        "precision": "float32",
        "compile": False,
        "deterministic": False,
        "ranks": 1,
        "threads": 1,
    }
    point = lab.study.points()[1]
    digests = lab.course.compute.describe() | KNOWN | {"teachers": ["a teacher"]}
    key = recipe_key(point.recipe, "data", "student", "noise", digests=digests)
    assert key == KNOWN_KEY


KNOWN = {
    "data": "3c580b154da81704d455ae76ece27155d2ae446e8eb33b80447af3076704a4d6",
    "untrained_student": "116d85b798903abc518d68ac9f565ed8d865c0ec6c66fd7239d3b9f2c8862cc8",
}
KNOWN_KEY = "d97a36220a0bb893e565afa03ec2ef38ed46b43f71b55b62e132998cfa0ed1c0"
