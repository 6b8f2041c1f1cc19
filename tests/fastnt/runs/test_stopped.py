"""A run that a signal or a kill stopped anywhere goes on and ends in the same bits."""

import itertools
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from fastnt.errors import Interrupted
from fastnt.interruption import Interruption
from fastnt.monitoring.display import Silent
from fastnt.runs.folder import RunFolder
from fastnt.runs.run import Run
from fastnt.training import checkpoint as checkpoint_module
from fastnt.training.checkpoint import Checkpoints
from fastnt.training.compute import choose_compute

from .stopping import (
    CPU,
    PHASES,
    At,
    Killed,
    die,
    die_at_file,
    forget_what_is_cached,
    planned,
    result_of,
    small_run,
    term,
)


# 200 rows are 4 batches an epoch, the last of 8.
@pytest.mark.parametrize(
    ("phase", "images"),
    [
        ("teacher", 64),
        ("teacher", 264),
        ("clean", 200),
        ("clean", 392),
        ("noisy", 1),
        ("noisy", 600),
    ],
)
def test_a_signal_saves_at_once_and_the_run_goes_on_from_there(
    tmp_path: Path, undisturbed: dict[str, Any], phase: str, images: int
) -> None:
    folder = tmp_path / "a"
    with pytest.raises(Interrupted, match=f"{phase} is saved in epoch .*--resume --run a"):
        small_run(folder, At(phase, images, term)).execute()
    saved = RunFolder(folder).checkpoints.newest()
    assert saved is not None
    assert saved.phase == phase
    assert saved.epoch * 4 + saved.batch == -(-(images % 200) // 64) + images // 200 * 4
    small_run(folder, resume=True).execute()
    assert result_of(folder) == undisturbed


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("images", [1, 200, 201])
def test_a_kill_after_any_batch_loses_nothing_that_was_saved(
    tmp_path: Path, undisturbed: dict[str, Any], always: None, phase: str, images: int
) -> None:
    folder = tmp_path / "a"
    with pytest.raises(Killed):
        small_run(folder, At(phase, images, die)).execute()
    saved = RunFolder(folder).checkpoints.newest()
    place = None if saved is None or saved.phase != phase else (saved.epoch, saved.batch)
    assert place == {1: None, 200: (0, 3), 201: (1, 0)}[images]  # the batch of a kill is not saved
    small_run(folder, resume=True).execute()
    assert result_of(folder) == undisturbed


def test_a_training_is_saved_each_half_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, saved = itertools.count(step=4), []  # a look at the clock takes four seconds
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: next(clock))
    save = Checkpoints.save

    def noted(self: Checkpoints, checkpoint: Any) -> None:
        saved.append((checkpoint.phase, checkpoint.epoch, checkpoint.batch))
        save(self, checkpoint)

    monkeypatch.setattr(Checkpoints, "save", noted)
    small_run(tmp_path / "a", epochs=8).execute()
    inside = [place for place in saved if place[0] == "clean" and place[1] < 8]
    assert 3 <= len(inside) <= 5  # of 32 batches, every seventh or eighth


def test_a_run_that_is_stopped_again_and_again_comes_to_its_end(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    folder, resume = tmp_path / "a", False
    for phase, images in (("teacher", 130), ("teacher", 300), ("clean", 70), ("noisy", 450)):
        with pytest.raises(Interrupted):
            small_run(folder, At(phase, images, term), resume=resume).execute()
        resume = True
    small_run(folder, resume=True).execute()
    assert result_of(folder) == undisturbed


def test_a_signal_between_two_looks_is_saved_too(
    tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether to stop is asked once a step: a signal just after that waits for the next step."""
    looks = itertools.count()

    def due(checkpoints: Checkpoints) -> bool:
        if next(looks) == 6:
            term()
        return False

    with monkeypatch.context() as patch, pytest.raises(Interrupted) as stopped:
        patch.setattr(Checkpoints, "due", property(due))
        small_run(tmp_path / "run").execute()
    saved = RunFolder(tmp_path / "run").checkpoints.newest()
    assert saved is not None
    where = f"{saved.phase} is saved in epoch {saved.epoch + 1} after {saved.batch} batch"
    assert where in str(stopped.value)
    small_run(tmp_path / "run", resume=True).execute()
    assert result_of(tmp_path / "run") == undisturbed


def test_a_second_signal_stops_at_once(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    def twice() -> None:
        term()
        term()

    folder = tmp_path / "a"
    with pytest.raises(Interrupted, match="stopped at once; go on with"):
        small_run(folder, At("clean", 300, twice)).execute()
    saved = RunFolder(folder).checkpoints.newest()
    assert saved is not None
    assert (saved.phase, saved.epoch) == ("teacher", 2)
    assert not list(folder.rglob("*.part"))
    small_run(folder, resume=True).execute()
    assert result_of(folder) == undisturbed


@pytest.mark.parametrize(
    ("step", "begun", "words"),
    [
        ("prepare_data", False, "stopped at once; nothing was trained yet: give the same command"),
        ("find_teachers", True, "stopped at once; go on with fastnt train --resume"),
    ],
)
def test_a_signal_outside_the_trainings_stops_at_once(
    tmp_path: Path,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    begun: bool,
    words: str,
) -> None:
    folder = tmp_path / "a"
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=words):
        patch.setattr(f"fastnt.runs.run.{step}", lambda *_, **__: term())
        small_run(folder).execute()
    assert folder.exists() == begun
    small_run(folder, resume=begun).execute()
    assert result_of(folder) == undisturbed


def test_handlers_are_put_back_and_are_the_main_threads_alone() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def enter() -> None:
        with Interruption():
            inside.append(signal.getsignal(signal.SIGTERM))

    inside: list[Any] = []
    enter()
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside[0] != before[1]
    assert inside[1] == before[1]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Interruption():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_short_run_saves_at_the_end_of_each_training_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    monkeypatch.setattr(
        "fastnt.training.checkpoint.save_checkpoint", lambda c, path: saved.append(c)
    )
    small_run(tmp_path / "a").execute()
    assert [(c.phase, c.epoch, c.batch) for c in saved] == [
        ("teacher", 2, 0),
        ("clean", 3, 0),
        ("noisy", 3, 0),
    ]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("file", ["environment.json", "config.json"])
def test_a_kill_while_a_run_begins_forgets_nothing_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, before: bool
) -> None:
    """The run goes on as it was asked for, or its name serves again; resuming asks for nothing."""
    folder = RunFolder(tmp_path / "a")
    other_precision = choose_compute(CPU).precision.dtype == torch.float32
    asked: Any = {"only": "clean", "amp": other_precision, "loader": "ffcv"}
    precision = choose_compute(CPU, amp=other_precision).precision.name

    def run(resume: bool, **options: Any) -> None:
        Run(*planned(folder.path, resume, {}, **options), Silent(), quiet=True).execute()

    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at_file(patch, lambda path: path.name == file, before=before)
        run(resume=False, **asked)
    if folder.config.exists():
        run(resume=True)
    else:
        run(resume=False, **asked)
    environment = folder.environment()
    found = environment["only"], environment["compute"]["precision"], environment["loader"]
    assert found == ("clean", precision, "ffcv")
    assert "noisy" not in folder.summary()


@pytest.mark.parametrize("before", [True, False])
def test_a_kill_at_any_write_loses_nothing(
    tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    for number in itertools.count(1):
        folder = tmp_path / f"a{number}"
        forget_what_is_cached()
        left = itertools.count(number - 1, -1)
        with monkeypatch.context() as patch:
            die_at_file(patch, lambda _, left=left: next(left) == 0, before=before)
            try:
                small_run(folder).execute()
            except Killed:
                pass
            else:
                break
        small_run(folder, resume=(folder / "config.json").exists()).execute()
        assert result_of(folder) == undisturbed
    assert number > 8
