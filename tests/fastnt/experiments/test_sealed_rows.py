"""A changed bit of a study's files and a changed number of its database are found."""

import pickle
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fastnt.errors import UserError
from fastnt.experiments.results import load_study
from fastnt.experiments.store import Store
from fastnt.experiments.study import CLEAN, Setting

from .fixture_types import Conduct, MakeStudy


def _found(folder: Path) -> Any:
    """Everything that a study's page is made of."""
    results = load_study(folder)
    return (
        pickle.dumps(results.records),
        pickle.dumps((results.failed, results.data, results.teachers, results.networks)),
        results.study,
    )


@pytest.mark.parametrize("name", ["results.sqlite", "small/study.toml"])
def test_a_flipped_bit_of_a_study_is_found_or_says_nothing_else(
    conduct: Conduct, studies: Path, small_study: MakeStudy, name: str
):
    settings = (Setting("clean", CLEAN, paper=21.94), Setting("sigma 0.6", {"sigma": 0.6}))
    conduct(small_study({"epochs": 1}, settings=settings, seeds=1))
    path, before = studies / name, _found(studies / "small")
    whole = path.read_bytes()
    found = 0
    places = random.Random(0).sample(range(len(whole)), 120)
    for place in places:
        flipped = bytes([whole[place] ^ (1 << place % 8)])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        try:
            assert _found(studies / "small") == before
        except UserError:
            found += 1
    assert found > 8  # most of a small database is empty


def test_a_changed_number_in_the_database_is_found(conduct: Conduct, studies: Path):
    conduct()
    for column, value in (
        ("last_test_wrong", "last_test_wrong + 1"),
        ("best_held_out_error", "best_held_out_error * 1.001"),
        ("epochs", "replace(epochs, '0.', '1.')"),
        ("error", "'diverged'"),
        ("last_predictions", "zeroblob(9)"),
    ):
        whole = (studies / "results.sqlite").read_bytes()
        with closing(sqlite3.connect(studies / "results.sqlite")) as database, database:
            database.execute(f"UPDATE points SET {column} = {value} WHERE seed = 1")
        for use in (conduct, lambda: load_study(studies / "small")):
            with pytest.raises(
                UserError, match="the SHA-256 of 3 rows of the table points is another"
            ):
                use()
        (studies / "results.sqlite").write_bytes(whole)


def test_a_database_of_an_earlier_release_is_read_and_sealed_when_it_is_written(
    conduct: Conduct, studies: Path
):
    conduct()
    before = _found(studies / "small")
    with closing(sqlite3.connect(studies / "results.sqlite")) as database:
        sealed = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%sha256%'"
        tables = [name for (name,) in database.execute(sealed)]
        assert {"points", "study_points", "data", "teachers", "networks"} <= set(tables)
        for table in tables:
            database.execute(f"ALTER TABLE {table} DROP COLUMN sha256")
    assert _found(studies / "small") == before
    Store(studies / "results.sqlite").copy_to(studies / "copy.sqlite")
    with closing(sqlite3.connect(studies / "copy.sqlite")) as copy:
        assert copy.execute("SELECT count(*) FROM points WHERE length(sha256) = 64").fetchone() == (
            6,
        )
