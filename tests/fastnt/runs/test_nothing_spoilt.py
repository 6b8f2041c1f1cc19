"""A full disk or a training that diverged leaves what was saved before, and nothing broken."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fastnt.errors import UserError
from fastnt.files import cache_dir
from fastnt.runs.folder import RunFolder
from fastnt.training.model import load_model
from fastnt.training.step import TrainStep

from .stopping import At, result_of, small_run, term


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
        small_run(folder, At("clean", 300, fill)).execute()
    small_files(-1)
    assert [p.name for p in (folder / "checkpoint").iterdir()] == ["00000001.safetensors"]
    small_run(folder, resume=True).execute()
    assert result_of(folder) == undisturbed


def test_a_full_disk_in_the_metrics_leaves_whole_lines(
    tmp_path: Path, undisturbed: dict[str, Any], small_files: Callable[[int], None]
) -> None:
    folder = tmp_path / "a"
    metrics = folder / "metrics.jsonl"
    fill = At("clean", 300, lambda: small_files(metrics.stat().st_size + 50))
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl.*then go on with"):
        small_run(folder, fill).execute()
    small_files(-1)
    assert [json.loads(line)["phase"] for line in metrics.read_text().splitlines()] == [
        *["teacher"] * 2,
        "clean",
    ]
    small_run(folder, resume=True).execute()
    assert result_of(folder) == undisturbed


def test_a_state_that_diverged_is_never_saved(tmp_path: Path, always: None) -> None:
    folder = tmp_path / "a"
    sentence = r"training of clean diverged in epoch 1, batch \d: .*begin a new run .*\(--lr\)"
    with pytest.raises(UserError, match=sentence):
        small_run(folder, lr=1e30).execute()
    saved = RunFolder(folder).checkpoints.newest()
    assert saved is not None
    assert all(t.isfinite().all() for name, t in saved.tensors.items() if name == "loss")


def test_weights_that_the_last_update_spoilt_are_no_success(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch 1: its held-out loss is not finite"):
        small_run(tmp_path / "a", lr=1e30, epochs=1, train_samples=64).execute()
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
        small_run(tmp_path / "a").execute()
    assert RunFolder(tmp_path / "a").checkpoints.newest() is None


def test_a_signal_does_not_save_a_state_that_diverged(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with pytest.raises(UserError, match="training of clean diverged"):
        small_run(folder, At("clean", 190, term), lr=1e30).execute()
    saved = RunFolder(folder).checkpoints.newest()
    assert saved is not None
    assert saved.phase == "teacher"


def test_logits_that_are_not_finite_or_were_changed_are_refused(tmp_path: Path) -> None:
    small_run(tmp_path / "a").execute()
    (table,) = (cache_dir() / "logits").rglob("*.safetensors")
    with safetensors.safe_open(table, framework="pt") as file:
        metadata = file.metadata()
    logits = safetensors.torch.load_file(table)
    logits["train"][[3, 5], 2] = torch.tensor([torch.nan, torch.inf])
    safetensors.torch.save_file(logits, table, metadata)
    with pytest.raises(UserError, match=r"table .* it is damaged: its SHA-256 is another; delete"):
        small_run(tmp_path / "b").execute()
    table.unlink()
    teacher = tmp_path / "a" / "teacher.safetensors"
    model = load_model(teacher)
    with torch.no_grad():
        next(p for p in model.parameters() if p.ndim == 2).fill_(torch.nan)
    model.save(teacher)
    with pytest.raises(UserError, match="200 of 200 rows of the logits of the teacher are not"):
        small_run(tmp_path / "c", teacher=str(teacher)).execute()
    assert not table.exists()
