"""Rows of a SQLite database with a SHA-256 over their other columns, which shows changed values.

HASH names the column, and the SQL function that takes a row's names and values in turn.
"""

import hashlib
import json
import sqlite3
from typing import Any

from fastnt.sealed import HASH
from fastnt.wording import counted


def know_seals(database: sqlite3.Connection) -> None:
    """Define the SQL function; the other functions here need it."""
    database.create_function(HASH, -1, _sha256, deterministic=True)


def tables(database: sqlite3.Connection) -> list[str]:
    """Return the names of the tables."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    return [name for (name,) in database.execute(query)]


def seal_row(database: sqlite3.Connection, table: str, rowid: int | None) -> None:
    """Give a row its SHA-256; a table without the column gets it."""
    database.execute(f"{_sealing(database, table)} WHERE rowid = ?", (rowid,))


def seal_rows(database: sqlite3.Connection, table: str) -> None:
    """Give each row of a table that has none its SHA-256; a table without the column gets it."""
    database.execute(f"{_sealing(database, table)} WHERE {HASH} IS NULL")


def _sealing(database: sqlite3.Connection, table: str) -> str:
    columns = _columns(database, table)
    if HASH not in columns:
        database.execute(f"ALTER TABLE {_quoted(table)} ADD COLUMN {HASH} TEXT")
    return f"UPDATE {_quoted(table)} SET {HASH} = {_call(columns)}"


def check_rows(database: sqlite3.Connection) -> None:
    """Refuse rows that are not what was sealed; rows of an earlier release have no SHA-256.

    Raises:
        sqlite3.DatabaseError: it says how many rows of which table.
    """
    for table in tables(database):
        columns = _columns(database, table)
        if HASH in columns:
            query = f"SELECT count(*) FROM {_quoted(table)} WHERE {HASH} != {_call(columns)}"
            (changed,) = database.execute(query).fetchone()
            if changed:
                raise sqlite3.DatabaseError(
                    f"the SHA-256 of {counted(changed, 'row')} of the table {table} is another"
                )


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in database.execute(f"PRAGMA table_info({_quoted(table)})")]


def _call(columns: list[str]) -> str:
    pairs = (f"{_quoted(name, mark)}" for name in columns if name != HASH for mark in ("'", '"'))
    return f"{HASH}({', '.join(pairs)})"


def _quoted(name: str, mark: str = '"') -> str:
    """Return a name as SQL takes it, whatever is in it: an identifier, or with ``'`` a text."""
    return mark + name.replace(mark, 2 * mark) + mark


def _sha256(*row: Any) -> str:
    """Return the hash of a row. Columns without a value do not count, so that some may be added."""
    pairs = zip(row[::2], row[1::2], strict=True)
    values = {name: value for name, value in pairs if value is not None}
    text = json.dumps(values, sort_keys=True, default=bytes.hex)
    return hashlib.sha256(text.encode()).hexdigest()
