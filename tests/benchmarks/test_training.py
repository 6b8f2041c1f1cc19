"""The training benchmark at a small size: its ways train what they say, its shares add up."""

import importlib.util
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fastnt.data.preprocess import Preprocess

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import training

    yield training
    for name in ("training", "ways", "kd_lib"):
        sys.modules.pop(name, None)


@pytest.fixture
def work(training: Any, tmp_path: Path) -> Any:
    """40 images, which the largest number of batches makes of 8."""
    return training.ways.make_work(tmp_path, 40, 8, "[C3(S2P1)@4]-FC10", "[C3(S2P1)@6]-FC10")


def test_the_ways_are_run_in_turn_and_leave_the_work_as_it_was(training: Any, work: Any) -> None:
    before = [p.clone() for p in (*work.student.parameters(), *work.teacher.parameters())]
    names = [name for name in training.MAKE if name != "KD_Lib"]
    rows = training.compare(work, names, 2, Console(file=io.StringIO()))
    assert [row["way"] for row in rows] == names
    for row in rows:
        assert len(row["rounds"]) == 2
        assert row["images"] == 8 * training.BATCHES[row["way"]]
        assert min(row["rounds"]) > 0
    after = (*work.student.parameters(), *work.teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_kd_lib_is_left_out_where_it_is_missing(
    training: Any, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "KD_Lib", None)
    console = Console(file=io.StringIO(), width=200)
    rows = training.compare(work, ["KD_Lib", "plain PyTorch"], 1, console)
    assert [row["way"] for row in rows] == ["plain PyTorch"]
    assert "KD_Lib is left out" in console.file.getvalue()  # type: ignore[attr-defined]


def test_kd_lib_trains_its_student(training: Any, work: Any) -> None:
    if importlib.util.find_spec("KD_Lib") is None:
        pytest.skip("KD_Lib is not installed")
    assert training.kd_lib(work.first(8))() > 0


def test_the_hand_written_normalisation_is_the_preprocessing(training: Any, work: Any) -> None:
    by_hand = training.ways.normalise(work.images, work.mean)
    preprocess = Preprocess("pixel_mean", training.ways.SHAPE)
    preprocess.mean.copy_(work.mean)
    torch.testing.assert_close(by_hand, preprocess(work.images))
    one_by_one = next(iter(training.ways.data_loader(work)))[0]
    assert one_by_one.shape == (8, 3, 32, 32)
    assert by_hand.mean().abs() < 1e-6


@pytest.mark.parametrize("bf16", [False, True])
def test_the_shares_are_of_one_whole_and_each_part_is_seen(
    training: Any, work: Any, bf16: bool
) -> None:
    found = training.shares(work, 1, bf16=bf16)
    assert list(found) == ["forward", "backward", "optimizer", "rest"]
    assert all(0 < share < 1 for share in found.values())
    assert sum(found.values()) == pytest.approx(1)
