"""What a watcher of a training sees: bars, lines, nothing, TensorBoard's files."""

import builtins
import io
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fastnt.cli import main
from fastnt.monitoring.display import Bars, Lines, Several, Silent, choose_progress
from fastnt.monitoring.progress import EpochRecord, Part, Progress
from fastnt.monitoring.time_left import TimeLeft
from fastnt.report.loggers import open_logger
from fastnt.report.tensorboard import SCALARS, TensorBoard
from fastnt.runs.folder import RunFolder

TINY = ("--epochs", "1", "--teacher-epochs", "1", "--train-samples", "100")


def _record(epoch: int, phase: str = "noisy") -> EpochRecord:
    return EpochRecord(phase, epoch, 1e-3 / epoch, 2.0 / epoch, 1.0 / epoch, 0.1234, 0.5, 4321.0)


@dataclass
class Remembering:
    """Writes down what it is told."""

    told: list[object] = field(default_factory=list)

    def expect(self, parts: Sequence[Part]) -> None:
        self.told.append(parts)

    def begin(self, phase: str, epochs: int, images: int, held_out: int = 0, done: int = 0) -> None:
        self.told.append((phase, epochs, images, held_out, done))

    def advance(self, images: int) -> None:
        self.told.append(images)

    def evaluated(self, images: int) -> None:
        self.told.append(-images)

    def end_epoch(self, record: EpochRecord) -> None:
        self.told.append(record)


def _train_one_of_two_epochs(progress: Progress) -> None:
    progress.begin("noisy", 2, 100)
    for _ in range(4):
        progress.advance(25)
    progress.end_epoch(_record(1))


def _terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def _last_line(console: Console, bars: Bars, word: str = "epoch") -> str:
    bars.stop()
    assert isinstance(console.file, io.StringIO)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    return [line for line in re.split(r"[\r\n]+", plain) if word in line][-1]


def test_a_bar_shows_epoch_error_speed_and_time_left_on_one_line() -> None:
    console = _terminal()
    bars = Bars(console)
    _train_one_of_two_epochs(bars)
    line = _last_line(console, bars)
    for words in ("student, noisy", "epoch 2/2", "held out 12.34 %", "images/s", "left"):
        assert words in line
    assert len(line) <= 78  # room for what a terminal echoes of Ctrl-C


def test_on_a_narrow_terminal_name_epoch_and_time_stay() -> None:
    console = _terminal(40)
    bars = Bars(console)
    _train_one_of_two_epochs(bars)
    line = _last_line(console, bars)
    assert len(line) <= 38
    for words in ("student, noisy", "epoch 2/2", "left"):
        assert words in line


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


def test_a_bar_goes_on_where_a_resumed_training_stands() -> None:
    console = _terminal()
    bars = Bars(console)
    bars.begin("clean", 4, 100, held_out=20, done=250)
    bars.advance(50)
    bars.evaluated(20)
    bars.end_epoch(_record(3, "clean"))
    bars.advance(100)
    bars.evaluated(20)
    assert "left" not in _last_line(console, bars)  # the bar is full


def test_what_is_broken_off_leaves_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    console = _terminal()
    monkeypatch.setattr("fastnt.monitoring.display.make_console", lambda stderr: console)
    with pytest.raises(KeyboardInterrupt), choose_progress(quiet=False) as bars:
        bars.expect([Part("clean", 100, 1.0), Part("noisy", 200, 1.0)])
        bars.begin("clean", 1, 100)
        bars.advance(100)
        _train_one_of_two_epochs(bars)
        raise KeyboardInterrupt
    assert isinstance(console.file, io.StringIO)
    last = console.file.getvalue().split("\x1b[2K")[-1]  # drawn after the last line was erased
    assert "student, clean" in last
    assert "student, noisy" not in last
    assert "all" not in last


def test_the_evaluation_is_a_bar_without_epochs() -> None:
    console = _terminal()
    bars = Bars(console)
    bars.begin("evaluation", 1, 100)
    bars.advance(50)
    line = _last_line(console, bars, "evaluation")
    assert "epoch" not in line
    assert "left" in line


class Clock:
    """A clock that is set by hand, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_is_that_of_all_parts() -> None:
    clock = Clock()
    left = TimeLeft(clock)
    assert left.seconds() is None
    left.expect([Part("teacher", 100, 4.0), Part("clean", 200, 1.0), Part("noisy", 200, 1.0)])
    left.begin("teacher")
    clock.now = 20.0
    left.advance(50)
    # 50 images of the teacher's at 0.4 s, and 400 of a quarter of its arithmetic.
    assert left.seconds() == pytest.approx(20 + 400 * 0.1)
    left.begin("clean")
    clock.now = 40.0
    left.advance(100)
    assert left.seconds() == pytest.approx(300 * 0.2)  # as measured now
    assert left.fraction() == pytest.approx((400 + 100) / 800)
    left.begin("noisy", done=150)  # resumed: what was done before tells nothing of the speed
    assert left.seconds() == pytest.approx(50 * 0.2)
    left.advance(50)
    assert left.fraction() == 1


def test_a_part_that_is_not_needed_is_passed_over() -> None:
    left = TimeLeft(Clock())
    left.expect([Part("teacher", 100, 4.0), Part("logits", 100, 1.0), Part("clean", 300, 1.0)])
    left.begin("clean")
    assert left.fraction() == pytest.approx(500 / 800)


def test_bars_and_lines_show_the_time_left_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("fastnt.monitoring.time_left.time.monotonic", clock)
    console, plain = _terminal(), Console(file=io.StringIO(), width=200)
    bars, lines = Bars(console), Lines(plain)
    for watcher in (bars, lines):
        watcher.expect([Part("clean", 200, 1.0), Part("noisy", 200, 1.0)])
        watcher.begin("clean", 2, 100)
        clock.now += 10.0
        watcher.advance(100)
        watcher.end_epoch(_record(1, "clean"))
    assert isinstance(plain.file, io.StringIO)
    assert plain.file.getvalue().endswith("4,321 images/s, in all 30 s left\n")
    line = _last_line(console, bars, "all")
    assert "1 min left" in line
    assert "left" in line
    assert "images/s" not in line
    assert len(line) <= 78  # room for what a terminal echoes of Ctrl-C


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_gets_the_bars_where_they_can_move(
    monkeypatch: pytest.MonkeyPatch, widgets: bool
) -> None:
    shell = type("ZMQInteractiveShell", (), {})
    monkeypatch.setattr(builtins, "get_ipython", shell, raising=False)
    there = SimpleNamespace(__spec__="found") if widgets else None  # None: cannot be imported
    monkeypatch.setitem(sys.modules, "ipywidgets", there)
    with choose_progress(quiet=False) as progress:
        assert isinstance(progress, Bars if widgets else Lines)
    monkeypatch.undo()
    with choose_progress(quiet=False) as progress:  # pytest's stderr is no terminal
        assert isinstance(progress, Lines)


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
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["train", "--run", "a", "--log", "tensorboard", "--quiet", *TINY])
    for phase in ("teacher", "clean", "noisy"):
        assert set(_scalars(Path("runs/a/tensorboard") / phase)) == set(SCALARS)


class StandIn:
    """What fastnt calls of wandb, written down."""

    Error = ValueError
    Settings = dict

    def __init__(self, mode: str = "offline") -> None:
        self.settings, self.calls = SimpleNamespace(mode=mode), list[Any]()

    def setup(self) -> "StandIn":
        return self

    def login(self, *, prompt: bool) -> bool:
        assert not prompt
        return False

    def init(self, **options: Any) -> "StandIn":
        self.calls.append(options)
        return self

    def define_metric(self, name: str, *, step_metric: str) -> None:
        self.calls.append((name, step_metric))

    def log(self, figures: dict[str, float]) -> None:
        self.calls.append(figures)

    def finish(self) -> None:
        self.calls.append("finished")

    def teardown(self) -> None:
        self.calls.append("all is written")


def test_wandb_is_told_of_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    (tmp_path / "wandb" / "run-20261125_182218-xy9qzav3").mkdir(parents=True)
    with ExitStack() as stack:
        watcher = open_logger("wandb", tmp_path, {"alpha": 0.5}, stack)
        assert wandb.calls == []
        _train_one_of_two_epochs(watcher)
    begun, metric, figures, *ended = wandb.calls
    assert (begun["dir"], begun["name"], begun["config"]) == (
        tmp_path,
        tmp_path.name,
        {"alpha": 0.5},
    )
    assert (begun["id"], begun["resume"]) == ("xy9qzav3", "allow")  # the run that it was before
    assert metric == ("noisy/*", "noisy/epoch")
    assert figures["noisy/epoch"] == 1
    assert figures["noisy/error/validation"] == 0.1234
    assert {f"noisy/{tag}" for tag in SCALARS} < figures.keys()
    assert ended == ["finished", "all is written"]


def test_wandb_without_an_account_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", StandIn("online"))
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--log", "wandb", *TINY])
    assert "wandb login, or keep the figures here with WANDB_MODE=off" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--log", "wandb", *TINY])
    assert "--log wandb needs the package wandb" in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.slow
def test_wandb_offline_keeps_each_epoch_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["train", "--run", "a", "--log", "wandb", "--quiet", *TINY])
    (file,) = Path("runs/a/wandb").glob("offline-run-*/run-*.wandb")
    written = file.read_bytes()
    for phase in ("teacher", "clean", "noisy"):
        for tag in ("epoch", *SCALARS):
            assert f"{phase}/{tag}".encode() in written
    record = RunFolder(Path("runs/a")).metrics.read()[-1]
    assert repr(record.validation_error).encode() in written


def test_without_the_package_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [n for n in sys.modules if n.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--log", "tensorboard", *TINY])
    error = capsys.readouterr().err
    assert error.startswith("fastnt: error: --log tensorboard needs the package tensorboard")
    assert error.count("\n") == 1
    assert not Path("runs").exists()
