"""A study that was stopped, killed or out of time goes on and ends in the same points."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastnt.errors import Interrupted, UserError
from fastnt.experiments import lab as lab_module
from fastnt.experiments.begin import begin_study
from fastnt.experiments.lab import StudySetup
from fastnt.experiments.results import load_study
from fastnt.experiments.run import Outcome
from fastnt.experiments.store import Store
from fastnt.experiments.study import CLEAN, Setting
from fastnt.files import locked
from fastnt.training.checkpoint import Checkpoints
from fastnt.training.pipeline import train_student
from fastnt.training.step import TrainStep
from fastnt.training.trainer import Trainer

from .fixture_types import Conduct, MakeStudy, Points


def _die_after(train: Callable[..., Any]) -> Callable[..., Any]:
    def dies(*arguments: Any, **options: Any) -> None:
        train(*arguments, **options)
        raise KeyboardInterrupt

    return dies


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
