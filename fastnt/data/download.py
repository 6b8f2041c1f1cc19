"""Fetch a data set's official files: each mirror in turn, checksums verified, files by rename."""

import logging
from pathlib import Path
from typing import Any

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from fastnt.data.sources import Source
from fastnt.errors import UserError
from fastnt.files import write_error


class _Bar:
    """The bar that pooch moves: a task of a Rich progress display."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=None)
        self._total = 0

    @property
    def total(self) -> int:
        return self._total

    @total.setter
    def total(self, value: int) -> None:
        self._total = value
        self._progress.update(self._task, total=value)

    def update(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def reset(self) -> None:
        """Start again: pooch does so once at the end, to set the bar to its total."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """Leave the finished bar on the screen."""


def download(source: Source, folder: Path, *, extra: bool = True, progress: bool = True) -> None:
    """Fetch what ``folder`` lacks of the data set's files.

    Args:
        source: the data set.
        folder: where the files go, by rename from a temporary name once their MD5 is right.
        extra: whether optional files are fetched too.
        progress: show a bar a file on stderr.

    Raises:
        UserError: no mirror gave a file, with each one's reason; or the folder cannot be written.
    """
    pooch.get_logger().setLevel(logging.ERROR)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as display:
        for name, md5 in source.files.items():
            if extra or name not in source.optional:
                _fetch(source, name, md5, folder, display)


def _fetch(source: Source, name: str, md5: str, folder: Path, display: Progress) -> None:
    reasons = []
    for mirror in source.mirrors:
        bar: Any = _Bar(display, name)
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16)
        try:
            pooch.retrieve(mirror + name, f"md5:{md5}", name, folder, downloader=downloader)
        except requests.RequestException as error:
            reasons.append(f"{mirror}: {_in_short(error)}")
        except ValueError:
            reasons.append(f"{mirror}: the checksum is wrong")
        except OSError as error:
            raise write_error(folder / name, error) from error
        else:
            return
    raise UserError(
        f"cannot download {name} ({'; '.join(reasons)}); fetch the files of {source.name} "
        "another way and name their folder with --data-dir"
    )


def _in_short(error: requests.RequestException) -> str:
    """Name the kind of failure: the exception's own words run over several lines."""
    if error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    return {
        "ConnectTimeout": "no answer in time",
        "ReadTimeout": "no answer in time",
        "SSLError": "no trusted connection",
        "ConnectionError": "no connection",
        "ChunkedEncodingError": "the connection broke",
    }.get(type(error).__name__, type(error).__name__)
