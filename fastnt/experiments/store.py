"""The database of points: one SQLite file for all studies of a folder.

A point is written once, in one transaction, when its training has ended. Its key (see
``fastnt.recipe_keys``) depends on everything that decides its result, so that studies share points.
Each row has a SHA-256 over its other columns: SQLite itself does not see a changed number.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnt.errors import UserError
from fastnt.experiments.sealed_rows import check_rows, know_seals, seal_row, seal_rows, tables
from fastnt.sealed import HASH

# Errors and agreements are fractions. Losses are the clean L2 loss (paper, Eq. 1), means over images.
_OUTCOME = """
    {0}_epoch INTEGER, {0}_held_out_error REAL, {0}_test_error REAL, {0}_test_wrong INTEGER,
    {0}_agreement REAL, {0}_train_loss REAL, {0}_held_out_loss REAL, {0}_test_loss REAL,
    {0}_predictions BLOB"""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS points (
    key TEXT PRIMARY KEY, recipe TEXT NOT NULL, seed INTEGER NOT NULL, arithmetic TEXT NOT NULL,
    data TEXT NOT NULL, teachers TEXT NOT NULL, machine TEXT NOT NULL, date TEXT NOT NULL,
    {_OUTCOME.format("last")}, {_OUTCOME.format("best")},
    epochs TEXT, seconds REAL, error TEXT);
CREATE TABLE IF NOT EXISTS study_points (
    study TEXT, setting TEXT, seed INTEGER, key TEXT NOT NULL, PRIMARY KEY (study, setting, seed));
CREATE TABLE IF NOT EXISTS data (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, official INTEGER NOT NULL, source TEXT NOT NULL,
    classes TEXT NOT NULL, shape TEXT NOT NULL, train_images INTEGER NOT NULL,
    held_out_labels BLOB NOT NULL, test_labels BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS teachers (
    digest TEXT, data TEXT, recipe TEXT NOT NULL, note TEXT NOT NULL, train_error REAL,
    held_out_error REAL, test_error REAL, test_wrong INTEGER, predictions BLOB, logit_rms REAL,
    epochs TEXT, PRIMARY KEY (digest, data));
CREATE TABLE IF NOT EXISTS study_teachers (
    study TEXT, name TEXT, digest TEXT NOT NULL, PRIMARY KEY (study, name));
CREATE TABLE IF NOT EXISTS probes (
    untrained_student TEXT PRIMARY KEY, network TEXT NOT NULL, outputs TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS networks (
    network TEXT, shape TEXT, classes INTEGER, parameters INTEGER, multiplies INTEGER,
    bytes INTEGER, latency_1 REAL, latency_256 REAL, machine TEXT,
    PRIMARY KEY (network, shape, classes));
"""
Row = dict[str, Any]


class Store:
    """One database. Each method opens it anew, so that any number of processes may share it."""

    def __init__(self, path: Path) -> None:
        """Make the file if there is none.

        Raises:
            UserError: the file is no database of studies, is damaged, or cannot be written.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.executescript(_SCHEMA)
            (state,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if state != "ok":
                raise sqlite3.DatabaseError(state)
            check_rows(database)

    def put(self, table: str, row: Mapping[str, Any]) -> None:
        """Write a row in one transaction; it replaces a row of the same key.

        Raises:
            UserError: the disk is full or the file cannot be written.
        """
        self.put_all(table, [row])

    def put_all(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows of the same columns in one transaction; they replace rows of the same keys."""
        rows = list(rows)
        if not rows:
            return
        names = ", ".join(rows[0])
        values = ", ".join(f":{name}" for name in rows[0])
        insert = f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({values})"
        with self._open() as database:
            for row in rows:
                seal_row(database, table, database.execute(insert, row).lastrowid)

    def rows(self, query: str, *values: Any) -> list[Row]:
        """Return the rows of a query, as dictionaries by column, without their SHA-256."""
        with self._open() as database:
            found = [dict(row) for row in database.execute(query, values)]
        return [{name: row[name] for name in row if name != HASH} for row in found]

    def finished(self, keys: Iterable[str]) -> set[str]:
        """Return those of the keys whose points were trained to the end without an error."""
        done = {row["key"] for row in self.rows("SELECT key FROM points WHERE error IS NULL")}
        return done.intersection(keys)

    def copy_to(self, path: Path) -> None:
        """Write a compact copy of the database; other processes may write to the database meanwhile."""
        with self._open() as database, closing(sqlite3.connect(path)) as copy:
            database.backup(copy)
            know_seals(copy)
            with copy:
                for table in tables(copy):
                    seal_rows(copy, table)
            copy.execute("VACUUM")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=120)) as database:
                database.row_factory = sqlite3.Row
                know_seals(database)
                with database:  # commits, or rolls back after an error
                    yield database
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.path} {_why(error)}") from error


def _why(error: sqlite3.DatabaseError) -> str:
    text = " ".join(str(error).split())
    if "full" in text or "I/O" in text:
        return f"cannot be written ({text}): free some space on the disk, and run the study again"
    if "readonly" in text or "unable to open" in text:
        return f"cannot be opened for writing ({text}); choose a folder you may write to (--studies-dir)"
    if "locked" in text:
        return (
            "has been locked by another process for two minutes; end that process, or wait for it"
        )
    return (
        f"is no sound database of studies ({text}); restore it from a copy, or move it away: the "
        "points in it are then trained again"
    )


def pack(numbers: npt.NDArray[Any]) -> bytes:
    """Compress non-negative integers, little-endian, in the smallest of uint8, uint16 and uint32."""
    kind = np.min_scalar_type(int(numbers.max(initial=0))).newbyteorder("<")
    return kind.str[1:].encode() + zlib.compress(numbers.astype(kind).tobytes(), 9)


def unpack(blob: bytes) -> npt.NDArray[np.int64]:
    """Return the integers that ``pack`` compressed."""
    kind = "<" + blob[:2].decode()
    return np.frombuffer(zlib.decompress(blob[2:]), kind).astype(np.int64)


def own_name(notation: str, study: str) -> str:
    """Return the name in the table of networks for one of the user's own: its code is a study's."""
    return f"{notation} of {study}"


def to_json(value: Any) -> str:
    """Return JSON with sorted keys, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True)
