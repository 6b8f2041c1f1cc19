"""A resumed run is the run that it was: its networks, its times, its pictures, its teacher."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastnt.errors import Interrupted
from fastnt.monitoring.display import Silent
from fastnt.monitoring.progress import EpochRecord
from fastnt.report.curves import plot_curves
from fastnt.runs import same_data
from fastnt.runs.folder import RunFolder
from fastnt.runs.networks import evaluate_run
from fastnt.runs.run import Run

from .stopping import (
    CPU,
    PHASES,
    At,
    Killed,
    forget_what_is_cached,
    planned,
    result_of,
    small_run,
    term,
)


def test_the_second_half_does_without_the_caches(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    folder = tmp_path / "a"
    with pytest.raises(Interrupted):
        small_run(folder, At("noisy", 70, term)).execute()
    forget_what_is_cached()
    small_run(folder, resume=True).execute()
    assert result_of(folder) == undisturbed


def test_a_teacher_that_another_run_stored_meanwhile_changes_nothing(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    folder = tmp_path / "a"
    with pytest.raises(Interrupted):
        small_run(folder, At("teacher", 70, term)).execute()
    small_run(tmp_path / "b").execute()
    small_run(folder, resume=True).execute()
    assert result_of(folder) == undisturbed


def test_mirror_images_crops_and_the_other_loader_resume_exactly(tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    values = {"random_mirror": True, "crop": 1, "preprocess": "pixel_mean"}

    def run(name: str, loader: Any, progress: Any = None, resume: bool = False) -> Run:
        plan_and_compute = planned(tmp_path / name, resume, values, loader=loader)
        return Run(*plan_and_compute, progress or Silent(), quiet=True)

    run("whole", "resident").execute()
    forget_what_is_cached()
    with pytest.raises(Interrupted):  # after the last batch of an epoch: nothing is left to load
        run("a", "ffcv", At("teacher", 200, term)).execute()
    with pytest.raises(Interrupted):
        run("a", "ffcv", At("clean", 250, term), resume=True).execute()
    run("a", "resident", resume=True).execute()
    assert result_of(tmp_path / "a") == result_of(tmp_path / "whole")


def test_times_go_on_where_they_stood(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with pytest.raises(Interrupted):
        small_run(folder, At("noisy", 300, term)).execute()
    saved = RunFolder(folder).checkpoints.newest()
    assert saved is not None
    run = small_run(folder, resume=True)
    run.execute()
    for part, seconds in saved.timings.items():
        assert run.timings[part] >= seconds > 0
    assert run.records[: len(saved.records)] == list(saved.records)


def test_the_picture_shows_all_epochs_after_a_resume(tmp_path: Path) -> None:
    drawn: list[EpochRecord] = []

    def plot(path: Path, records: Any, summary: Any) -> None:
        drawn.extend(records)
        plot_curves(path, records, summary)

    folder = tmp_path / "a"
    with pytest.raises(Interrupted):
        small_run(folder, At("noisy", 300, term)).execute()
    small_run(folder, resume=True).execute(plot)
    assert [(r.phase, r.epoch) for r in drawn if r.phase != "teacher"] == [
        (phase, epoch) for phase in ("clean", "noisy") for epoch in (1, 2, 3)
    ]
    assert (folder / "curves.png").exists()


def test_a_picture_that_fails_leaves_the_run_to_be_resumed(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    def plot(*_: Any) -> None:
        raise Killed

    folder = tmp_path / "a"
    with pytest.raises(Killed):
        small_run(folder).execute(plot)
    small_run(folder, resume=True).execute()
    assert result_of(folder) == undisturbed


def test_a_finished_run_is_read_and_not_touched(tmp_path: Path) -> None:
    run = small_run(tmp_path / "a")
    summary = run.execute()
    before = {path: path.stat().st_mtime_ns for path in run.folder.path.iterdir()}
    again = small_run(tmp_path / "a", resume=True)
    assert again.execute() == summary
    assert again.timings == run.timings
    assert {path: path.stat().st_mtime_ns for path in run.folder.path.iterdir()} == before


def test_a_resumed_run_is_evaluated_with_the_same_errors(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        small_run(tmp_path / "a", At("clean", 100, term)).execute()
    summary = small_run(tmp_path / "a", resume=True).execute()
    errors = evaluate_run(tmp_path / "a", None, CPU)
    assert errors == {phase: summary[phase]["test_error"] for phase in PHASES}


def test_without_any_checkpoint_it_starts_from_the_beginning(
    undisturbed: dict[str, Any], stopped: Path
) -> None:
    for path in (stopped / "checkpoint").glob("*.safetensors"):
        path.unlink()
    forget_what_is_cached()
    small_run(stopped, resume=True).execute()
    assert result_of(stopped) == undisturbed


def test_a_teacher_that_was_given_is_not_needed_again(tmp_path: Path) -> None:
    small_run(tmp_path / "a").execute()
    teacher = tmp_path / "given.safetensors"
    teacher.write_bytes((tmp_path / "a" / "teacher.safetensors").read_bytes())
    small_run(tmp_path / "whole", teacher=str(teacher)).execute()
    with pytest.raises(Interrupted):
        small_run(tmp_path / "b", At("clean", 100, term), teacher=str(teacher)).execute()
    kept = teacher.rename(tmp_path / "away")
    small_run(tmp_path / "b", resume=True, teacher=str(teacher)).execute()
    assert kept.exists()
    assert result_of(tmp_path / "b") == result_of(tmp_path / "whole")


def test_what_was_prepared_before_is_found_by_its_hash(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = json.loads((stopped / "environment.json").read_text())["source_sha256"]
    monkeypatch.setattr(same_data, "prepare_data", None)  # nothing is prepared anew
    assert same_data.open_same_data(RunFolder(stopped), None).source_sha256 == wanted
