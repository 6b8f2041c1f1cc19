"""What a watcher of a training sees: bars, lines, nothing, TensorBoard's files."""

import io
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from fastnt.cli import main
from fastnt.report.tensorboard import SCALARS, TensorBoard
from fastnt.training.display import Bars, Lines, Several, Silent
from fastnt.training.progress import EpochRecord, Progress

TINY = ("--epochs", "1", "--teacher-epochs", "1", "--train-samples", "100")


def _record(epoch: int, phase: str = "noisy") -> EpochRecord:
    return EpochRecord(phase, epoch, 1e-3 / epoch, 2.0 / epoch, 1.0 / epoch, 0.1234, 0.5, 4321.0)


@dataclass
class Remembering:
    """Writes down what it is told."""

    told: list[object] = field(default_factory=list)

    def begin(self, phase: str, epochs: int, images: int) -> None:
        self.told.append((phase, epochs, images))

    def advance(self, images: int) -> None:
        self.told.append(images)

    def end_epoch(self, record: EpochRecord) -> None:
        self.told.append(record)


def _train_one_of_two_epochs(progress: Progress) -> None:
    progress.begin("noisy", 2, 100)
    for _ in range(4):
        progress.advance(25)
    progress.end_epoch(_record(1))


def _terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def _last_line(console: Console, bars: Bars) -> str:
    bars.stop()
    assert isinstance(console.file, io.StringIO)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    return [line for line in re.split(r"[\r\n]+", plain) if "epoch" in line][-1]


def test_a_bar_shows_epoch_error_speed_and_time_left_on_one_line() -> None:
    console = _terminal()
    bars = Bars(console)
    _train_one_of_two_epochs(bars)
    line = _last_line(console, bars)
    for words in ("student, noisy", "epoch 2/2", "error 12.34 %", "images/s", "left"):
        assert words in line
    assert len(line) <= 80


def test_a_bar_shows_the_speed_while_the_first_epoch_runs() -> None:
    console = _terminal()
    bars = Bars(console)
    bars.begin("clean", 2, 100)
    for _ in range(3):
        bars.advance(25)
    line = _last_line(console, bars)
    assert "epoch 1/2" in line
    assert "images/s" in line
    assert "error" not in line


def test_a_finished_bar_keeps_the_speed_of_its_last_epoch() -> None:
    console = _terminal()
    bars = Bars(console)
    _train_one_of_two_epochs(bars)
    bars.advance(100)
    bars.end_epoch(_record(2))
    line = _last_line(console, bars)
    assert "epoch 2/2" in line
    assert "4,321 images/s" in line
    assert "left" not in line


def test_lines_are_plain() -> None:
    console = Console(file=io.StringIO(), width=20)
    _train_one_of_two_epochs(Lines(console))
    assert isinstance(console.file, io.StringIO)
    assert (
        console.file.getvalue()
        == "student, noisy: epoch 1/2, held-out error 12.34 %, 4,321 images/s\n"
    )


def test_several_watchers_hear_the_same() -> None:
    alone, first, second = Remembering(), Remembering(), Remembering()
    _train_one_of_two_epochs(alone)
    _train_one_of_two_epochs(Several(first, Silent(), second))
    assert first.told == second.told == alone.told
    assert len(alone.told) == 6


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_gets_each_networks_figures_by_epoch(tmp_path: Path) -> None:
    watcher = TensorBoard(tmp_path / "tensorboard")
    assert not (tmp_path / "tensorboard").exists()  # a run makes its own folder
    for phase in ("clean", "noisy"):
        watcher.begin(phase, 2, 100)
        for epoch in (1, 2):
            watcher.end_epoch(_record(epoch, phase))
    for phase in ("clean", "noisy"):
        found = _scalars(tmp_path / "tensorboard" / phase)
        assert set(found) == set(SCALARS)
        assert found["loss/train"] == [(1, 2.0), (2, 1.0)]
        assert found["loss/validation"] == [(1, 1.0), (2, 0.5)]
        assert found["error/validation"] == [(e, pytest.approx(0.1234)) for e in (1, 2)]
        assert found["lr"] == [(1, pytest.approx(1e-3)), (2, pytest.approx(5e-4))]
        assert found["images per second"] == [(1, 4321.0), (2, 4321.0)]


def test_an_interrupted_training_leaves_its_epochs_and_goes_on_where_it_resumes(
    tmp_path: Path,
) -> None:
    first = TensorBoard(tmp_path)
    first.begin("noisy", 9, 100)
    for epoch in (1, 2, 3):
        first.end_epoch(_record(epoch))
    assert [step for step, _ in _scalars(tmp_path / "noisy")["lr"]] == [1, 2, 3]
    again = TensorBoard(tmp_path)
    again.begin("noisy", 4, 100)
    for epoch in (3, 4):
        again.end_epoch(_record(epoch))
    assert [step for step, _ in _scalars(tmp_path / "noisy")["lr"]] == [1, 2, 3, 4]


def test_train_writes_for_tensorboard_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--run", "a", "--tensorboard", "--quiet", *TINY])
    for phase in ("teacher", "clean", "noisy"):
        assert set(_scalars(Path("runs/a/tensorboard") / phase)) == set(SCALARS)


def test_without_the_package_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [n for n in sys.modules if n.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--tensorboard", *TINY])
    error = capsys.readouterr().err
    assert error.startswith("fastnt: error: --tensorboard needs the package tensorboard")
    assert error.count("\n") == 1
    assert not Path("runs").exists()
