"""What a run cannot go on with is refused in one sentence that says how to mend it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastnt.errors import UserError
from fastnt.monitoring.display import Silent
from fastnt.runs.resume import find_run, resumed_run
from fastnt.runs.run import Run
from fastnt.training.checkpoint import Checkpoint, Checkpoints
from fastnt.training.compute import Compute, choose_compute

from .stopping import CPU, At, Killed, die, forget_what_is_cached, planned, result_of, small_run


def test_without_resume_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        small_run(tmp_path / "a", At("clean", 1, die)).execute()
    with pytest.raises(UserError, match="did not finish; go on with it with --resume, or choose"):
        small_run(tmp_path / "a")


def test_a_run_that_is_going_on_is_refused_and_not_harmed(tmp_path: Path) -> None:
    small_run(tmp_path / "undisturbed").execute()
    forget_what_is_cached()
    folder, tried = tmp_path / "a", []

    def try_too() -> None:
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        with pytest.raises(UserError, match="is being trained by another process"):
            small_run(folder, resume=True).execute()
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
        tried.append(True)

    small_run(folder, At("clean", 300, try_too)).execute()
    assert tried
    assert result_of(folder) == result_of(tmp_path / "undisturbed")


def test_the_newest_unfinished_run_is_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no unfinished run"):
        find_run(tmp_path / "none", None)
    for name, progress in (("b", die), ("a", die), ("c", None)):
        if progress is None:
            small_run(tmp_path / name).execute()
            continue
        with pytest.raises(Killed):
            small_run(tmp_path / name, At("clean", 1, progress)).execute()
    assert find_run(tmp_path, None).path == tmp_path / "a"
    assert find_run(tmp_path, "b").path == tmp_path / "b"
    assert find_run(tmp_path, "c").finished
    with pytest.raises(UserError, match="holds no run to go on with"):
        find_run(tmp_path, "d")
    with pytest.raises(UserError, match="must be the name of a folder"):
        find_run(tmp_path, "../a")


def test_other_arithmetic_than_before_is_refused(stopped: Path) -> None:
    path = stopped / "environment.json"
    environment = json.loads(path.read_text())
    before = environment["compute"]

    def resume(**asked: Any) -> Compute:
        return planned(stopped, True, {}, **asked)[1]

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
        planned(stopped, True, {})


def test_other_data_than_before_are_refused(stopped: Path) -> None:
    path = stopped / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source_sha256": "0" * 64}))
    with pytest.raises(UserError, match="made with other files of digits"):
        small_run(stopped, resume=True).execute()


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(
    undisturbed: dict[str, Any], stopped: Path
) -> None:
    older, newest = sorted((stopped / "checkpoint").glob("*.safetensors"))
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(
        UserError, match=rf"{newest.name} is damaged .* delete it, and --resume goes"
    ):
        small_run(stopped, resume=True).execute()
    newest.unlink()
    assert older.exists()
    small_run(stopped, resume=True).execute()
    assert result_of(stopped) == undisturbed


def test_a_run_without_its_arithmetic_is_refused(stopped: Path) -> None:
    (stopped / "environment.json").unlink()
    with pytest.raises(UserError, match=r"environment\.json says that device is None"):
        planned(stopped, True, {})
