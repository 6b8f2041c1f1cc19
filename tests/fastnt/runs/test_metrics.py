"""metrics.jsonl: what counts of a file that a kill or a hand has touched."""

import dataclasses
import json
from pathlib import Path

import pytest

from fastnt.errors import UserError
from fastnt.runs.metrics import Metrics
from fastnt.training.progress import EpochRecord


def _epoch(phase: str, epoch: int) -> EpochRecord:
    return EpochRecord(phase, epoch, 1e-3, 2.0 / epoch, 1.0 / epoch, 0.5 / epoch, 2.0, 100.0)


def _record(phase: str, epoch: int) -> dict[str, object]:
    return dataclasses.asdict(_epoch(phase, epoch))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    metrics, records = Metrics(tmp_path / "metrics.jsonl"), [_epoch("clean", e) for e in (1, 2, 3)]
    assert metrics.read() == []
    for record in records:
        metrics.append(record)
    assert metrics.read() == records
    metrics.write(records[:1])
    assert metrics.read() == records[:1]
    metrics.write([])
    assert not metrics.path.exists()


def test_of_an_epoch_recorded_twice_the_later_counts(tmp_path: Path) -> None:
    metrics, again = (
        Metrics(tmp_path / "metrics.jsonl"),
        dataclasses.replace(_epoch("a", 1), lr=2.0),
    )
    for record in (_epoch("a", 1), _epoch("a", 2), again):
        metrics.append(record)
    assert metrics.read() == [again, _epoch("a", 2)]


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_a_last_line_counts_only_when_it_is_whole(tmp_path: Path, cut: int) -> None:
    text = "".join(json.dumps(_record("clean", epoch)) + "\n" for epoch in (1, 2, 3))
    path = tmp_path / "metrics.jsonl"
    path.write_text(text[: len(text) - 1 - cut])
    assert [record.epoch for record in Metrics(path).read()] == ([1, 2] if cut else [1, 2, 3])


HUGE = json.dumps(_record("clean", 1) | {"lr": 10**400})


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"phase": "clean", "epoch": "one"}', "[" * 100_000, HUGE]
)
def test_a_damaged_line_within_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(_record('clean', 1))}\n{line}\n")
    with pytest.raises(UserError, match=r"line 2 of .*metrics.jsonl is not an epoch's record"):
        Metrics(path).read()
