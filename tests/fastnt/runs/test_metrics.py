"""metrics.jsonl: what counts of a file that a kill or a hand has touched."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fastnt.errors import UserError
from fastnt.monitoring.progress import EpochRecord
from fastnt.runs.metrics import Metrics
from fastnt.sealed import HASH, seal


def _epoch(phase: str, epoch: int) -> EpochRecord:
    return EpochRecord(phase, epoch, 1e-3, 2.0 / epoch, 1.0 / epoch, 0.5 / epoch, 2.0, 100.0)


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


@pytest.fixture
def three(tmp_path: Path) -> Metrics:
    """Three epochs of a student, one after the other."""
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for epoch in (1, 2, 3):
        metrics.append(_epoch("clean", epoch))
    return metrics


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_a_last_line_counts_only_when_it_is_whole(three: Metrics, cut: int) -> None:
    text = three.path.read_text()
    three.path.write_text(text[: len(text) - 1 - cut])
    assert [record.epoch for record in three.read()] == ([1, 2] if cut else [1, 2, 3])


@pytest.mark.parametrize("line", ["{", "[]", "{}", "[" * 100_000])
def test_a_damaged_line_within_is_named(three: Metrics, line: str) -> None:
    _replace_second(three, line)
    with pytest.raises(UserError, match=r"line 2 of .*metrics.jsonl is not an epoch's record"):
        three.read()


RECORD = dataclasses.asdict(_epoch("clean", 2))


@pytest.mark.parametrize(
    "record",
    [
        *({**RECORD, "epoch": "one"}, {**RECORD, "phase": 1}, {**RECORD, "lr": 10**400}),
        *({**RECORD, "lr": [1]}, {**RECORD, "lr": "much"}),
        {name: value for name, value in RECORD.items() if name != "lr"},
    ],
)
def test_a_sealed_line_that_is_no_record_is_named(three: Metrics, record: dict[str, Any]) -> None:
    before = json.loads(three.path.read_text().splitlines()[0])[HASH]
    _replace_second(three, json.dumps(seal(record, before)))
    with pytest.raises(UserError, match=r"line 2 of .*metrics.jsonl is not an epoch's record"):
        three.read()


def _replace_second(metrics: Metrics, line: str) -> None:
    first, _, last = metrics.path.read_text().splitlines()
    metrics.path.write_text(f"{first}\n{line}\n{last}\n")


def test_a_flipped_bit_is_found_or_says_nothing_else(three: Metrics) -> None:
    whole, records = three.path.read_bytes(), three.read()
    silent = 0
    for place in range(len(whole) - 1):  # behind the last newline a line may be cut short
        for bit in range(8):
            flipped = bytes([whole[place] ^ (1 << bit)])
            three.path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
            try:
                silent += three.read() == records
            except UserError:
                continue
            else:
                assert three.read() == records
    assert silent < 50  # such as 1e-05 and 1E-05


def test_lines_that_were_left_out_or_exchanged_are_found(three: Metrics) -> None:
    first, second, third = three.path.read_text().splitlines(keepends=True)
    for text in (second + third, first + third, second + first + third, first * 2):
        three.path.write_text(text)
        with pytest.raises(UserError, match="was changed"):
            three.read()
