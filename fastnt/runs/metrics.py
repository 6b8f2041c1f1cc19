"""metrics.jsonl: a line for each epoch, appended while the run is trained.

Each line has a SHA-256 over itself and over the hash in the line before.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastnt.errors import UserError
from fastnt.files import parse_json, write_error, write_text
from fastnt.monitoring.progress import EpochRecord
from fastnt.sealed import HASH, seal, unseal


class Metrics:
    """The metrics.jsonl of a run; the file need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: EpochRecord) -> None:
        """Append an epoch; if this fails, the file is as before.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            size = self.path.stat().st_size if self.path.exists() else 0
            line = seal(dataclasses.asdict(record), self._last_hash())
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(_text(line))
            except OSError:
                with suppress(OSError):
                    os.truncate(self.path, size)
                raise
        except OSError as error:
            raise write_error(self.path, error) from error

    def write(self, records: Sequence[EpochRecord]) -> None:
        """Write the file with these epochs and no others."""
        text, before = "", ""
        for record in records:
            line = seal(dataclasses.asdict(record), before)
            text, before = text + _text(line), line[HASH]
        if records:
            write_text(self.path, text)
        else:
            self.path.unlink(missing_ok=True)

    def read(self) -> list[EpochRecord]:
        """Read the epochs. If an epoch was recorded twice, the later record counts.

        An incomplete last line, which a kill may leave, is ignored. Without a file there are no epochs.

        Raises:
            UserError: another line is no record of an epoch.
        """
        if not self.path.exists():
            return []
        *lines, last = self.path.read_bytes().split(b"\n")  # the last is empty or incomplete
        records: dict[tuple[str, int], EpochRecord] = {}
        before = ""
        for number, line in enumerate([*lines, last] if _is_whole(last) else lines, start=1):
            try:
                record, before = _record(line, before)
            except (ValueError, TypeError, LookupError, OverflowError) as error:
                raise UserError(
                    f"line {number} of {self.path} is not an epoch's record, or was changed ({error}); "
                    "restore the file from a copy, or train the run again"
                ) from error
            records[record.phase, record.epoch] = record
        return list(records.values())

    def _last_hash(self) -> str:
        """Return the hash in the last line; empty if there is no line."""
        if not self.path.exists():
            return ""
        *_, last = self.path.read_bytes().splitlines() or [b"{}"]
        try:
            return str(parse_json(last).get(HASH, ""))
        except (ValueError, AttributeError):  # the line is damaged; reading the file will say so
            return ""


def _text(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"


def _is_whole(line: bytes) -> bool:
    """Tell whether a line that lacks its newline is a complete JSON object."""
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _record(line: bytes, before: str) -> tuple[EpochRecord, str]:
    """Return the record in a line and the line's hash; ``before`` is the hash of the line before."""
    sealed = parse_json(line)
    value = unseal(sealed, before)
    fields = {field.name: value[field.name] for field in dataclasses.fields(EpochRecord)}
    if not isinstance(fields["phase"], str) or not isinstance(fields["epoch"], int):
        raise TypeError
    numbers = {name: float(n) for name, n in fields.items() if name not in ("phase", "epoch")}
    record = EpochRecord(phase=fields["phase"], epoch=fields["epoch"], **numbers)
    return record, sealed[HASH]
