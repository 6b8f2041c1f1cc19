"""The database: rows whole or absent, and one sentence where it cannot be read or written."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastnt.errors import UserError
from fastnt.experiments.store import Store, pack, unpack

ROW = {"study": "s", "setting": "clean", "seed": 0, "key": "k"}


@pytest.mark.parametrize("largest", [0, 9, 255, 256, 65535, 65536])
def test_predictions_are_unpacked_as_they_were(largest: int):
    numbers = np.array([0, largest, 3 % (largest + 1)])
    blob = pack(numbers)
    assert blob[:2] == {True: b"u1", False: b"u2" if largest < 65536 else b"u4"}[largest < 256]
    np.testing.assert_array_equal(unpack(blob), numbers)
    assert len(unpack(pack(np.zeros(0, np.int64)))) == 0


def test_a_row_is_found_again_and_written_over(tmp_path: Path):
    store = Store(tmp_path / "results.sqlite")
    store.put("study_points", ROW)
    store.put("study_points", ROW | {"key": "other"})
    assert Store(tmp_path / "results.sqlite").rows("SELECT * FROM study_points") == [
        ROW | {"key": "other"}
    ]


def test_rows_are_written_together_or_not_at_all(tmp_path: Path):
    store = Store(tmp_path / "results.sqlite")
    with pytest.raises(UserError):
        store.put_all("study_points", [ROW, ROW | {"key": None}])
    assert store.rows("SELECT * FROM study_points") == []


def test_a_copy_holds_the_same(tmp_path: Path):
    store = Store(tmp_path / "results.sqlite")
    store.put("study_points", ROW)
    store.copy_to(tmp_path / "copy.sqlite")
    assert Store(tmp_path / "copy.sqlite").rows("SELECT * FROM study_points") == [ROW]


@pytest.mark.parametrize("damage", ["text", "header", "page"])
def test_a_damaged_database_is_refused_in_one_sentence(tmp_path: Path, damage: str):
    path = tmp_path / "results.sqlite"
    store = Store(path)
    store.put_all("study_points", [ROW | {"seed": i, "key": "k" * 200} for i in range(200)])
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = bytearray(b"this is no database, but it is longer than a header " * 9)
    elif damage == "header":
        content[:16] = bytes(16)
    else:
        for page in range(1, len(content) // 4096):
            content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"results\.sqlite is no sound database") as caught:
        Store(path).rows("SELECT * FROM study_points")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content  # nothing is lost that could be repaired


def test_a_full_disk_is_said_so_and_loses_nothing(
    tmp_path: Path, small_files: Callable[[int], None]
):
    store = Store(tmp_path / "results.sqlite")
    store.put("study_points", ROW)
    with sqlite3.connect(store.path) as database:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
    small_files(4096 * pages)
    with pytest.raises(UserError, match="cannot be written"):
        store.put_all("study_points", [ROW | {"seed": i, "key": "k" * 99} for i in range(999)])
    small_files(-1)
    assert store.rows("SELECT * FROM study_points") == [ROW]
