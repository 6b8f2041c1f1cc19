"""metrics.jsonl: a line an epoch, which grows while a run goes on."""

import dataclasses
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastnt.errors import UserError
from fastnt.files import parse_json, write_error, write_text
from fastnt.training.progress import EpochRecord


class Metrics:
    """The file of a run's epochs; it need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: EpochRecord) -> None:
        """Append an epoch, all of it or nothing.

        Raises:
            UserError: it cannot be written.
        """
        try:
            size = self.path.stat().st_size if self.path.exists() else 0
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(_line(record))
            except OSError:
                with suppress(OSError):
                    os.truncate(self.path, size)
                raise
        except OSError as error:
            raise write_error(self.path, error) from error

    def write(self, records: Sequence[EpochRecord]) -> None:
        """Make the file hold these epochs and no others."""
        if records:
            write_text(self.path, "".join(map(_line, records)))
        else:
            self.path.unlink(missing_ok=True)

    def read(self) -> list[EpochRecord]:
        """Read the epochs; of one that was recorded twice the later record counts.

        A last line that a kill cut short is passed over, and without the file there are no records.

        Raises:
            UserError: another line is not an epoch's record.
        """
        if not self.path.exists():
            return []
        *lines, last = self.path.read_bytes().split(b"\n")  # the last is empty, or was cut short
        records: dict[tuple[str, int], EpochRecord] = {}
        for number, line in enumerate([*lines, last] if _is_whole(last) else lines, start=1):
            try:
                record = _record(line)
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                raise UserError(
                    f"line {number} of {self.path} is not an epoch's record; train the run again"
                ) from error
            records[record.phase, record.epoch] = record
        return list(records.values())


def _line(record: EpochRecord) -> str:
    return json.dumps(dataclasses.asdict(record)) + "\n"


def _is_whole(line: bytes) -> bool:
    """Whether a line without its newline is a record nonetheless."""
    try:
        _record(line)
    except (ValueError, TypeError, LookupError, OverflowError):
        return False
    return True


def _record(line: bytes) -> EpochRecord:
    value: Any = parse_json(line)
    fields = {field.name: value[field.name] for field in dataclasses.fields(EpochRecord)}
    if not isinstance(fields["phase"], str) or not isinstance(fields["epoch"], int):
        raise TypeError
    numbers = {name: float(n) for name, n in fields.items() if name not in ("phase", "epoch")}
    return EpochRecord(phase=fields["phase"], epoch=fields["epoch"], **numbers)
