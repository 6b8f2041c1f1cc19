"""A checkpoint is whole and verified, or refused; the last two are kept."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastnt.errors import UserError
from fastnt.monitoring.progress import EpochRecord
from fastnt.training.checkpoint import Checkpoint, Checkpoints, load_checkpoint, save_checkpoint


@pytest.fixture
def checkpoint() -> Checkpoint:
    tensors = {
        "model.weight": torch.randn(3, 5),
        "number": torch.tensor(17),
        "generator.cpu": torch.get_rng_state(),
        "half": torch.randn(4).bfloat16(),
        "empty": torch.empty(0, 2),
    }
    record = EpochRecord("teacher", 1, 1e-3, 0.1, float("nan"), 1 / 3, 2.5, 1e5)
    made_by = {"recipe": {"sigma": 0.6}, "compute": {"threads": 2}}
    timings = {"prepare_seconds": 1 / 7}
    return Checkpoint("clean", 2, 17, 0.25, (record,), timings, tensors, made_by)


def _same(a: Checkpoint, b: Checkpoint) -> bool:
    same = all(
        x.dtype == y.dtype and torch.equal(x, y)
        for x, y in zip(a.tensors.values(), b.tensors.values(), strict=True)
    )
    tensors: dict[str, torch.Tensor] = {}
    ordered = a.tensors.keys() == b.tensors.keys()
    return (
        same and ordered and repr(replace(a, tensors=tensors)) == repr(replace(b, tensors=tensors))
    )


def _sorted(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, tensors=dict(sorted(checkpoint.tensors.items())))


def test_what_is_saved_is_loaded(tmp_path: Path, checkpoint: Checkpoint) -> None:
    save_checkpoint(checkpoint, tmp_path / "a")
    assert _same(_sorted(load_checkpoint(tmp_path / "a")), _sorted(checkpoint))


@pytest.mark.parametrize(
    "changes", [{"phase": "x"}, {"epoch": -1}, {"batch": 1.5}, {"epoch": "one"}, {"phase": [1]}]
)
def test_a_checkpoint_of_no_place_is_refused(
    tmp_path: Path, checkpoint: Checkpoint, changes: dict[str, Any]
) -> None:
    save_checkpoint(replace(checkpoint, **changes), tmp_path / "a")
    with pytest.raises(UserError, match="names no place in a training"):
        load_checkpoint(tmp_path / "a")


def test_a_flipped_byte_anywhere_is_refused(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = tmp_path / "a.safetensors"
    small = {name: t for name, t in checkpoint.tensors.items() if name != "generator.cpu"}
    save_checkpoint(replace(checkpoint, tensors=small), path)
    whole = path.read_bytes()
    padding = len(whole[: 8 + int.from_bytes(whole[:8], "little")].rstrip(b" "))
    end = 8 + int.from_bytes(whole[:8], "little")
    for place in range(len(whole)):
        for bit in (0x01, 0x20, 0xFF):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            if padding <= place < end:  # spaces that mean nothing
                continue
            with pytest.raises(UserError, match=r"checkpoint .*a\.safetensors is damaged .*delete"):
                load_checkpoint(path)
    for length in (0, 7, end, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="is damaged"):
            load_checkpoint(path)


def test_the_last_two_are_kept_in_order(tmp_path: Path, checkpoint: Checkpoint) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest() is None
    for epoch in range(12):
        checkpoints.save(replace(checkpoint, epoch=epoch))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["00000011.safetensors", "00000012.safetensors"]
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.epoch == 11
    (tmp_path / names[1]).unlink()
    before = checkpoints.newest()
    assert before is not None
    assert before.epoch == 10


@pytest.mark.parametrize("failing", ["fsync", "write"])
def test_a_full_disk_keeps_those_before(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in range(3):
        checkpoints.save(replace(checkpoint, epoch=epoch))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if failing == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match=r"cannot write .*00000004.*No space left"):
            checkpoints.save(replace(checkpoint, epoch=3))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.epoch == 2


def test_clearing_leaves_what_is_not_a_checkpoint(tmp_path: Path, checkpoint: Checkpoint) -> None:
    folder = tmp_path / "checkpoint"
    checkpoints = Checkpoints(folder)
    checkpoints.save(checkpoint)
    checkpoints.clear()
    assert not folder.exists()
    checkpoints.save(checkpoint)
    (folder / "notes.txt").write_text("mine")
    checkpoints.clear()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
