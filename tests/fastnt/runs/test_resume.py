"""A run that was stopped anywhere goes on and ends in the same bits as one that was not."""

import itertools
import json
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fastnt.config import Recipe
from fastnt.data.loaders import LoaderKind
from fastnt.errors import Interrupted, UserError
from fastnt.files import cache_dir
from fastnt.interruption import Interruption
from fastnt.monitoring.display import Silent
from fastnt.monitoring.progress import EpochRecord
from fastnt.recipe_files import load_recipe
from fastnt.report.curves import plot_curves
from fastnt.runs import same_data
from fastnt.runs.folder import Only, RunFolder
from fastnt.runs.networks import evaluate_run
from fastnt.runs.resume import Plan, find_run, new_run, resumed_run
from fastnt.runs.run import Run
from fastnt.sealed import seal
from fastnt.training import checkpoint as checkpoint_module
from fastnt.training.checkpoint import Checkpoint, Checkpoints
from fastnt.training.compute import Compute, choose_compute
from fastnt.training.model import load_model
from fastnt.training.step import TrainStep

CPU = torch.device("cpu")
PHASES = ("teacher", "clean", "noisy")
TIMES = ("seconds", "images_per_second", "sha256")  # and the hash, which is over them too


class Killed(BaseException):
    """Stands for a process that ends without a word."""


@dataclass
class At(Silent):
    """Does ``what`` when so many images of a phase were trained on."""

    phase: str
    images: int
    what: Callable[[], object]
    seen: int = field(default=0, init=False)
    now: str = field(default="", init=False)

    def begin(self, phase: str, epochs: int, images: int, held_out: int = 0, done: int = 0) -> None:
        self.now, self.seen = phase, done

    def advance(self, images: int) -> None:
        before, self.seen = self.seen, self.seen + images
        if self.now == self.phase and before < self.images <= self.seen:
            self.what()


def die() -> None:
    raise Killed


def term() -> None:
    signal.raise_signal(signal.SIGTERM)


def _recipe(**values: Any) -> Recipe:
    small = {"epochs": 3, "teacher_epochs": 2, "train_samples": 200, "seed": 4}
    networks = {"student_network": "FC32-D0.5-FC10", "teacher_network": "FC24-D0.2-FC10"}
    return load_recipe("digits", None, small | networks | values)


def _run(folder: Path, progress: Any = None, *, resume: bool = False, **values: Any) -> Run:
    return Run(*_planned(folder, resume, values), progress or Silent(), quiet=True)


def _planned(
    folder: Path,
    resume: bool,
    values: Any,
    *,
    device: torch.device = CPU,
    loader: LoaderKind = "auto",
    amp: bool | None = None,
    compile: bool | None = None,
    only: Only | None = None,
) -> tuple[Plan, Compute]:
    """What the command line plans for these options."""
    recipe = _recipe(**values)
    if resume:
        plan = resumed_run(folder.parent, folder.name, overrides=asdict(recipe))
    else:
        plan = new_run(recipe, folder.parent, folder.name, only)
    asked = choose_compute(device, amp=amp, compile=compile, loader=loader)
    return plan, plan.compute(asked, amp=amp, compile=compile)


def _forget_what_is_cached() -> None:
    for name in ("teachers", "logits"):
        for path in (cache_dir() / name).rglob("*.safetensors"):
            path.unlink()


def _result(folder: Path) -> dict[str, Any]:
    """Everything a run made, without times."""
    result: dict[str, Any] = {
        name: (folder / name).read_bytes()
        for name in (
            "config.json",
            "summary.json",
            "predictions.safetensors",
            *(f"{phase}.safetensors" for phase in PHASES),
        )
    }
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result["metrics"] = [{k: v for k, v in r.items() if k not in TIMES} for r in records]
    result["files"] = sorted(path.name for path in folder.iterdir())
    return result


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, Any]:
    _run(tmp_path / "undisturbed").execute()
    _forget_what_is_cached()
    return _result(tmp_path / "undisturbed")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every step."""
    monkeypatch.setattr(checkpoint_module, "INTERVAL", 0.0)


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
        _run(folder, At(phase, images, term)).execute()
    saved = RunFolder(folder).checkpoints.newest()
    assert saved is not None
    assert saved.phase == phase
    assert saved.epoch * 4 + saved.batch == -(-(images % 200) // 64) + images // 200 * 4
    _run(folder, resume=True).execute()
    assert _result(folder) == undisturbed


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("images", [1, 200, 201])
def test_a_kill_after_any_batch_loses_nothing_that_was_saved(
    tmp_path: Path, undisturbed: dict[str, Any], always: None, phase: str, images: int
) -> None:
    folder = tmp_path / "a"
    with pytest.raises(Killed):
        _run(folder, At(phase, images, die)).execute()
    saved = RunFolder(folder).checkpoints.newest()
    place = None if saved is None or saved.phase != phase else (saved.epoch, saved.batch)
    assert place == {1: None, 200: (0, 3), 201: (1, 0)}[images]  # the batch of a kill is not saved
    _run(folder, resume=True).execute()
    assert _result(folder) == undisturbed


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
    _run(tmp_path / "a", epochs=8).execute()
    inside = [place for place in saved if place[0] == "clean" and place[1] < 8]
    assert 3 <= len(inside) <= 5  # of 32 batches, every seventh or eighth


def test_a_run_that_is_stopped_again_and_again_comes_to_its_end(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    folder, resume = tmp_path / "a", False
    for phase, images in (("teacher", 130), ("teacher", 300), ("clean", 70), ("noisy", 450)):
        with pytest.raises(Interrupted):
            _run(folder, At(phase, images, term), resume=resume).execute()
        resume = True
    _run(folder, resume=True).execute()
    assert _result(folder) == undisturbed


def test_the_second_half_does_without_the_caches(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    folder = tmp_path / "a"
    with pytest.raises(Interrupted):
        _run(folder, At("noisy", 70, term)).execute()
    _forget_what_is_cached()
    _run(folder, resume=True).execute()
    assert _result(folder) == undisturbed


def test_a_teacher_that_another_run_stored_meanwhile_changes_nothing(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    folder = tmp_path / "a"
    with pytest.raises(Interrupted):
        _run(folder, At("teacher", 70, term)).execute()
    _run(tmp_path / "b").execute()
    _run(folder, resume=True).execute()
    assert _result(folder) == undisturbed


def test_mirror_images_crops_and_the_other_loader_resume_exactly(tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    values = {"random_mirror": True, "crop": 1, "preprocess": "pixel_mean"}

    def run(name: str, loader: Any, progress: Any = None, resume: bool = False) -> Run:
        planned = _planned(tmp_path / name, resume, values, loader=loader)
        return Run(*planned, progress or Silent(), quiet=True)

    run("whole", "resident").execute()
    _forget_what_is_cached()
    with pytest.raises(Interrupted):  # after the last batch of an epoch: nothing is left to load
        run("a", "ffcv", At("teacher", 200, term)).execute()
    with pytest.raises(Interrupted):
        run("a", "ffcv", At("clean", 250, term), resume=True).execute()
    run("a", "resident", resume=True).execute()
    assert _result(tmp_path / "a") == _result(tmp_path / "whole")


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
        _run(tmp_path / "run").execute()
    saved = RunFolder(tmp_path / "run").checkpoints.newest()
    assert saved is not None
    where = f"{saved.phase} is saved in epoch {saved.epoch + 1} after {saved.batch} batch"
    assert where in str(stopped.value)
    _run(tmp_path / "run", resume=True).execute()
    assert _result(tmp_path / "run") == undisturbed


def test_a_second_signal_stops_at_once(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    def twice() -> None:
        term()
        term()

    folder = tmp_path / "a"
    with pytest.raises(Interrupted, match="stopped at once; go on with"):
        _run(folder, At("clean", 300, twice)).execute()
    saved = RunFolder(folder).checkpoints.newest()
    assert saved is not None
    assert (saved.phase, saved.epoch) == ("teacher", 2)
    assert not list(folder.rglob("*.part"))
    _run(folder, resume=True).execute()
    assert _result(folder) == undisturbed


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
        _run(folder).execute()
    assert folder.exists() == begun
    _run(folder, resume=begun).execute()
    assert _result(folder) == undisturbed


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
    _run(tmp_path / "a").execute()
    assert [(c.phase, c.epoch, c.batch) for c in saved] == [
        ("teacher", 2, 0),
        ("clean", 3, 0),
        ("noisy", 3, 0),
    ]


def test_times_go_on_where_they_stood(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with pytest.raises(Interrupted):
        _run(folder, At("noisy", 300, term)).execute()
    saved = RunFolder(folder).checkpoints.newest()
    assert saved is not None
    run = _run(folder, resume=True)
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
        _run(folder, At("noisy", 300, term)).execute()
    _run(folder, resume=True).execute(plot)
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
        _run(folder).execute(plot)
    _run(folder, resume=True).execute()
    assert _result(folder) == undisturbed


def test_a_finished_run_is_read_and_not_touched(tmp_path: Path) -> None:
    run = _run(tmp_path / "a")
    summary = run.execute()
    before = {path: path.stat().st_mtime_ns for path in run.folder.path.iterdir()}
    again = _run(tmp_path / "a", resume=True)
    assert again.execute() == summary
    assert again.timings == run.timings
    assert {path: path.stat().st_mtime_ns for path in run.folder.path.iterdir()} == before


def test_a_resumed_run_is_evaluated_with_the_same_errors(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        _run(tmp_path / "a", At("clean", 100, term)).execute()
    summary = _run(tmp_path / "a", resume=True).execute()
    errors = evaluate_run(tmp_path / "a", None, CPU)
    assert errors == {phase: summary[phase]["test_error"] for phase in PHASES}


def test_without_resume_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        _run(tmp_path / "a", At("clean", 1, die)).execute()
    with pytest.raises(UserError, match="did not finish; go on with it with --resume, or choose"):
        _run(tmp_path / "a")


def test_a_run_that_is_going_on_is_refused_and_not_harmed(tmp_path: Path) -> None:
    _run(tmp_path / "undisturbed").execute()
    _forget_what_is_cached()
    folder, tried = tmp_path / "a", []

    def try_too() -> None:
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        with pytest.raises(UserError, match="is being trained by another process"):
            _run(folder, resume=True).execute()
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
        tried.append(True)

    _run(folder, At("clean", 300, try_too)).execute()
    assert tried
    assert _result(folder) == _result(tmp_path / "undisturbed")


def test_the_newest_unfinished_run_is_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no unfinished run"):
        find_run(tmp_path / "none", None)
    for name, progress in (("b", die), ("a", die), ("c", None)):
        if progress is None:
            _run(tmp_path / name).execute()
            continue
        with pytest.raises(Killed):
            _run(tmp_path / name, At("clean", 1, progress)).execute()
    assert find_run(tmp_path, None).path == tmp_path / "a"
    assert find_run(tmp_path, "b").path == tmp_path / "b"
    assert find_run(tmp_path, "c").finished
    with pytest.raises(UserError, match="holds no run to go on with"):
        find_run(tmp_path, "d")
    with pytest.raises(UserError, match="must be the name of a folder"):
        find_run(tmp_path, "../a")


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run that was stopped in the second student."""
    with pytest.raises(Interrupted):
        _run(tmp_path / "a", At("noisy", 300, term)).execute()
    return tmp_path / "a"


def test_other_arithmetic_than_before_is_refused(stopped: Path) -> None:
    path = stopped / "environment.json"
    environment = json.loads(path.read_text())
    before = environment["compute"]

    def resume(**asked: Any) -> Compute:
        return _planned(stopped, True, {}, **asked)[1]

    def write(**changes: Any) -> None:
        path.write_text(json.dumps(environment | {"compute": before | changes}))

    with pytest.raises(UserError, match="begun with another precision"):
        resume(amp=before["precision"] == "float32")
    with pytest.raises(UserError, match="begun with another compile"):
        resume(compile=not before["compile"])
    with pytest.raises(UserError, match=r"another device .*--device cpu"):
        resume(device=torch.device("cuda"))
    write(deterministic=True)
    with pytest.raises(UserError, match=r"another determinism .*with --deterministic$"):
        resume()
    write(precision="bfloat16", threads=3)
    assert resume().precision.dtype == torch.bfloat16
    assert (resume().threads, torch.get_num_threads()) == (3, 1)
    for bad in ({"precision": "float31"}, {"threads": "two"}, {"precision": 4}):
        write(**bad)
        with pytest.raises(UserError, match=r"environment\.json .*begin a new run"):
            resume()


@pytest.mark.parametrize(
    ("file", "change"),
    [
        *(
            ("config.json", change)
            for change in (
                {"sigma": 0.9},
                {"sigma": [0.1, 0.6]},
                {"seed": 5},
                {"lr": 0.1},
                {"batch_size": 32},
                {"epochs": 9},
                {"teacher_seed": 3},
                {"alpha": 0.25},
                {"student_network": "FC10"},
            )
        ),
        ("environment.json", {"precision": "float16"}),
        ("environment.json", {"threads": 2}),
    ],
)
def test_what_was_edited_since_the_checkpoint_is_refused_by_name(
    stopped: Path, file: str, change: dict[str, Any]
) -> None:
    def resumed() -> Run:
        plan = resumed_run(stopped.parent, stopped.name)
        asked = choose_compute(CPU)
        return Run(plan, plan.compute(asked, amp=None, compile=None), Silent(), quiet=True)

    path = stopped / file
    whole = path.read_text()
    values = json.loads(whole)
    edited = change if file == "config.json" else {"compute": values["compute"] | change}
    path.write_text(json.dumps(values | edited))
    (key,) = change
    checkpoints = sorted((stopped / "checkpoint").iterdir())
    with pytest.raises(UserError, match=rf"saved: {key} is .*, not .* as before; change that back"):
        resumed().execute()
    assert sorted((stopped / "checkpoint").iterdir()) == checkpoints
    path.write_text(whole)
    resumed().execute()


def test_a_key_that_fastnt_did_not_have_yet_had_its_default(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(self: Checkpoints) -> Checkpoint | None:
        found = newest(self)
        assert found is not None
        del found.made_by["recipe"]["penalty"]
        return found

    newest = Checkpoints.newest
    monkeypatch.setattr(Checkpoints, "newest", older)
    values = json.loads((stopped / "config.json").read_text())
    del values["penalty"]
    (stopped / "config.json").write_text(json.dumps(values))
    plan = resumed_run(stopped.parent, stopped.name)
    compute = plan.compute(choose_compute(CPU), amp=None, compile=None)
    assert Run(plan, compute, Silent(), quiet=True).execute()["noisy"]


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "float31"},
        {"precision": None},
        {"threads": 0},
        {"threads": -1},
        {"threads": True},
        {"threads": 1.5},
        {"threads": 10**9},
        {"threads": None},
        {"ranks": 0},
        {"device": "tpu"},
        {"compile": "no"},
        {"deterministic": 1},
    ],
)
def test_an_arithmetic_that_cannot_be_is_refused_by_name(
    stopped: Path, change: dict[str, Any]
) -> None:
    path = stopped / "environment.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"compute": values["compute"] | change}))
    with pytest.raises(UserError, match=rf"environment\.json says that {next(iter(change))} is"):
        _planned(stopped, True, {})


def test_other_data_than_before_are_refused(stopped: Path) -> None:
    path = stopped / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source_sha256": "0" * 64}))
    with pytest.raises(UserError, match="made with other files of digits"):
        _run(stopped, resume=True).execute()


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(
    undisturbed: dict[str, Any], stopped: Path
) -> None:
    older, newest = sorted((stopped / "checkpoint").glob("*.safetensors"))
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(
        UserError, match=rf"{newest.name} is damaged .* delete it, and --resume goes"
    ):
        _run(stopped, resume=True).execute()
    newest.unlink()
    assert older.exists()
    _run(stopped, resume=True).execute()
    assert _result(stopped) == undisturbed


def test_without_any_checkpoint_it_starts_from_the_beginning(
    undisturbed: dict[str, Any], stopped: Path
) -> None:
    for path in (stopped / "checkpoint").glob("*.safetensors"):
        path.unlink()
    _forget_what_is_cached()
    _run(stopped, resume=True).execute()
    assert _result(stopped) == undisturbed


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Make every write beyond so many bytes of a file fail, as a full disk does."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_while_saving_keeps_the_checkpoint_before(
    tmp_path: Path, undisturbed: dict[str, Any], small_files: Callable[[int], None]
) -> None:
    def fill() -> None:
        small_files(8_000)
        term()

    folder = tmp_path / "a"
    with pytest.raises(
        UserError, match=r"cannot write .*0002\.safe.*; then go on with fastnt train"
    ):
        _run(folder, At("clean", 300, fill)).execute()
    small_files(-1)
    assert [p.name for p in (folder / "checkpoint").iterdir()] == ["00000001.safetensors"]
    _run(folder, resume=True).execute()
    assert _result(folder) == undisturbed


def test_a_full_disk_in_the_metrics_leaves_whole_lines(
    tmp_path: Path, undisturbed: dict[str, Any], small_files: Callable[[int], None]
) -> None:
    folder = tmp_path / "a"
    metrics = folder / "metrics.jsonl"
    fill = At("clean", 300, lambda: small_files(metrics.stat().st_size + 50))
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl.*then go on with"):
        _run(folder, fill).execute()
    small_files(-1)
    assert [json.loads(line)["phase"] for line in metrics.read_text().splitlines()] == [
        *["teacher"] * 2,
        "clean",
    ]
    _run(folder, resume=True).execute()
    assert _result(folder) == undisturbed


def test_a_state_that_diverged_is_never_saved(tmp_path: Path, always: None) -> None:
    folder = tmp_path / "a"
    sentence = r"training of clean diverged in epoch 1, batch \d: .*begin a new run .*\(--lr\)"
    with pytest.raises(UserError, match=sentence):
        _run(folder, lr=1e30).execute()
    saved = RunFolder(folder).checkpoints.newest()
    assert saved is not None
    assert all(t.isfinite().all() for name, t in saved.tensors.items() if name == "loss")


def test_weights_that_the_last_update_spoilt_are_no_success(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch 1: its held-out loss is not finite"):
        _run(tmp_path / "a", lr=1e30, epochs=1, train_samples=64).execute()
    assert not (tmp_path / "a" / "clean.safetensors").exists()


def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path, always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TrainStep.state

    def spoilt(self: TrainStep) -> dict[str, torch.Tensor]:
        state = whole(self)
        next(v for n, v in state.items() if n.startswith("model.network"))[0] = float("nan")
        return state

    monkeypatch.setattr(TrainStep, "state", spoilt)
    with pytest.raises(UserError, match="batch 1: its weights are not finite"):
        _run(tmp_path / "a").execute()
    assert RunFolder(tmp_path / "a").checkpoints.newest() is None


def _summary(values: dict[str, Any] | None = None, **counts: Any) -> dict[str, Any]:
    network = {"test_error": 0.1, "parameters": 1, "multiplies": 2} | counts
    found = {"dataset": "digits", "official": True, "seed": 0} | dict.fromkeys(PHASES, network)
    return found | (values or {})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("summary.json", seal({}), "lacks dataset, official, seed, teacher"),
        ("summary.json", [1], "has no SHA-256"),
        ("summary.json", _summary(), "has no SHA-256"),
        ("summary.json", seal(_summary()) | {"seed": 1}, "s SHA-256 is another"),
        (
            "summary.json",
            seal(_summary(test_wrong=3, test_images=2)),
            "lacks teacher, clean, noisy",
        ),
        ("summary.json", seal(_summary(test_wrong="3", test_images=9)), "lacks teacher, clean, no"),
        ("timings.json", [1], "has no SHA-256"),
        ("timings.json", {"a": 1.0}, "has no SHA-256"),
        ("timings.json", seal({"a": "b"}), "holds no seconds by name"),
        (
            "summary.json",
            seal(_summary({"relative_improvement": "much"})),
            "lacks a number as relative",
        ),
    ],
)
def test_a_damaged_summary_is_one_sentence(
    tmp_path: Path, name: str, content: Any, words: str
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_summary(_summary())
    folder.write_timings({"clean_seconds": 1.5})
    assert (folder.summary(), folder.timings()) == (_summary(), {"clean_seconds": 1.5})
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{name} is damaged: it ?{words}"):
        folder.summary()
        folder.timings()


@pytest.mark.parametrize("name", ["summary.json", "timings.json"])
def test_a_flipped_bit_of_a_result_is_found_or_says_nothing_else(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    summary, timings = _summary(), {"clean_seconds": 1.5, "noisy_images_per_second": 1e-7}
    folder.write_summary(summary)
    folder.write_timings(timings)
    path = tmp_path / name
    whole = path.read_bytes()
    found = 0
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytes([whole[place] ^ (1 << bit)])
            path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
            try:
                assert (folder.summary(), folder.timings()) == (summary, timings)
            except UserError:
                found += 1
    assert found > 8 * len(whole) * 0.98  # but for 1e-07 and 1E-07, or a last newline


def test_a_signal_does_not_save_a_state_that_diverged(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with pytest.raises(UserError, match="training of clean diverged"):
        _run(folder, At("clean", 190, term), lr=1e30).execute()
    saved = RunFolder(folder).checkpoints.newest()
    assert saved is not None
    assert saved.phase == "teacher"


def test_logits_that_are_not_finite_or_were_changed_are_refused(tmp_path: Path) -> None:
    _run(tmp_path / "a").execute()
    (table,) = (cache_dir() / "logits").rglob("*.safetensors")
    with safetensors.safe_open(table, framework="pt") as file:
        metadata = file.metadata()
    logits = safetensors.torch.load_file(table)
    logits["train"][[3, 5], 2] = torch.tensor([torch.nan, torch.inf])
    safetensors.torch.save_file(logits, table, metadata)
    with pytest.raises(UserError, match=r"table .* it is damaged: its SHA-256 is another; delete"):
        _run(tmp_path / "b").execute()
    table.unlink()
    teacher = tmp_path / "a" / "teacher.safetensors"
    model = load_model(teacher)
    with torch.no_grad():
        next(p for p in model.parameters() if p.ndim == 2).fill_(torch.nan)
    model.save(teacher)
    with pytest.raises(UserError, match="200 of 200 rows of the logits of the teacher are not"):
        _run(tmp_path / "c", teacher=str(teacher)).execute()
    assert not table.exists()


def test_a_teacher_that_was_given_is_not_needed_again(tmp_path: Path) -> None:
    _run(tmp_path / "a").execute()
    teacher = tmp_path / "given.safetensors"
    teacher.write_bytes((tmp_path / "a" / "teacher.safetensors").read_bytes())
    _run(tmp_path / "whole", teacher=str(teacher)).execute()
    with pytest.raises(Interrupted):
        _run(tmp_path / "b", At("clean", 100, term), teacher=str(teacher)).execute()
    kept = teacher.rename(tmp_path / "away")
    _run(tmp_path / "b", resume=True, teacher=str(teacher)).execute()
    assert kept.exists()
    assert _result(tmp_path / "b") == _result(tmp_path / "whole")


def test_what_was_prepared_before_is_found_by_its_hash(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = json.loads((stopped / "environment.json").read_text())["source_sha256"]
    monkeypatch.setattr(same_data, "prepare_data", None)  # nothing is prepared anew
    assert same_data.open_same_data(RunFolder(stopped), None).source_sha256 == wanted


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("file", ["environment.json", "config.json"])
def test_a_kill_while_a_run_begins_forgets_nothing_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, before: bool
) -> None:
    """The run goes on as it was asked for, or its name serves again; resuming asks for nothing."""
    whole, folder = Path.replace, RunFolder(tmp_path / "a")
    other_precision = choose_compute(CPU).precision.dtype == torch.float32
    asked: Any = {"only": "clean", "amp": other_precision, "loader": "ffcv"}
    precision = choose_compute(CPU, amp=other_precision).precision.name

    def dying(self: Path, target: Any) -> Path:
        if target.name == file and before:
            raise Killed
        result = whole(self, target)
        if target.name == file:
            raise Killed
        return result

    def run(resume: bool, **options: Any) -> None:
        Run(*_planned(folder.path, resume, {}, **options), Silent(), quiet=True).execute()

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", dying)
        run(resume=False, **asked)
    if folder.config.exists():
        run(resume=True)
    else:
        run(resume=False, **asked)
    environment = folder.environment()
    found = environment["only"], environment["compute"]["precision"], environment["loader"]
    assert found == ("clean", precision, "ffcv")
    assert "noisy" not in folder.summary()


def test_a_run_without_its_arithmetic_is_refused(stopped: Path) -> None:
    (stopped / "environment.json").unlink()
    with pytest.raises(UserError, match=r"environment\.json says that device is None"):
        _planned(stopped, True, {})


@pytest.mark.parametrize("before", [True, False])
def test_a_kill_at_any_write_loses_nothing(
    tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    whole, left = Path.replace, [0]

    def dying(self: Path, target: Any) -> Path:
        left[0] -= 1
        if left[0] == 0 and before:
            raise Killed
        result = whole(self, target)
        if left[0] == 0:
            raise Killed
        return result

    for number in itertools.count(1):
        folder = tmp_path / f"a{number}"
        _forget_what_is_cached()
        left[0] = number
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            try:
                _run(folder).execute()
            except Killed:
                pass
            else:
                break
        _run(folder, resume=(folder / "config.json").exists()).execute()
        assert _result(folder) == undisturbed
    assert number > 8
