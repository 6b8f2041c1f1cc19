"""Download official files: try each mirror, verify size and checksum, then rename the file."""

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from fastnt.console import LiveProgress, Words, make_console, shows_bars
from fastnt.data.sources import Source
from fastnt.errors import UserError
from fastnt.files import atomic_path, sweep

# After GRACE seconds, a mirror that is slower than LEAST_RATE bytes/s is given up. Together with the
# size of the file this limits the total time.
LEAST_RATE, GRACE = 10_000, 30.0
RETRY_AFTER = 1.0  # seconds to wait after an error of the server; there is one retry
_TIMEOUT = (10, 30)  # seconds, to connect and to wait for bytes
_PIECE = 1 << 16


class _GivenUp(Exception):
    """A mirror did not send a file; the message says why."""


def download(source: Source, folder: Path, *, extra: bool = True, progress: bool = True) -> None:
    """Download the files of the data set that ``folder`` lacks; no other process may write there.

    Args:
        source: the data set.
        folder: the files appear there, by renaming, once their MD5 is verified.
        extra: whether optional files are downloaded too.
        progress: show a bar for each file on stderr.

    Raises:
        UserError: no mirror sent a file (the message has each mirror's reason), or the folder cannot be
            written.
    """
    sweep(folder)
    columns = (
        Words("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    console = make_console(stderr=True)
    shown = progress and shows_bars(console)
    with LiveProgress(*columns, console=console, disable=not shown) as display:
        for name in source.files:
            if extra or name not in source.optional:
                _fetch(source, name, folder / name, display)


def _fetch(source: Source, name: str, path: Path, display: Progress) -> None:
    """Download a file from the first mirror that sends it, unless the file is there."""
    size, md5 = source.sizes[name], source.files[name]
    if path.is_file() and path.stat().st_size == size:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() == md5:
                return
    reasons = []
    for mirror in source.mirrors:
        task = display.add_task(name, total=size)

        def show(count: int, task: object = task) -> None:
            display.advance(task, count)  # type: ignore[arg-type]

        try:
            with atomic_path(path) as temporary:
                _receive(mirror + name, temporary, size, md5, show)
            return
        except _GivenUp as why:
            reasons.append(f"{mirror}: {why}")
    raise UserError(
        f"cannot download {name} ({'; '.join(reasons)}); fetch the files of {source.name} "
        "another way and name their folder with --data-dir"
    )


def _receive(url: str, path: Path, size: int, md5: str, advance: Callable[[int], None]) -> None:
    """Download ``url`` to ``path``; raise _GivenUp if it is not the official file."""
    digest, count = hashlib.md5(usedforsecurity=False), 0
    with _answer(url) as response, path.open("wb") as file:
        begun = time.monotonic()
        while piece := _read(response, url):
            count += len(piece)
            if count > size:
                raise _GivenUp(f"it sends more than the file's {size:,} bytes")
            if count < (time.monotonic() - begun - GRACE) * LEAST_RATE:
                raise _GivenUp(f"it sends less than {LEAST_RATE / 1000:g} kB a second")
            file.write(piece)
            digest.update(piece)
            advance(len(piece))
    if count < size:
        raise _GivenUp(f"the connection broke after {count:,} of {size:,} bytes")
    if digest.hexdigest() != md5:
        raise _GivenUp("the checksum is wrong")


def _answer(url: str) -> requests.Response:
    """Request a file; try once more if the server had an error."""
    for attempt in (1, 2):
        try:
            response = requests.get(
                url, stream=True, timeout=_TIMEOUT, headers={"Accept-Encoding": "identity"}
            )
            if response.status_code < 400:
                return response
            why = f"HTTP {response.status_code} {response.reason}"
            response.close()
            if response.status_code < 500 or attempt == 2:
                raise _GivenUp(why)
            time.sleep(RETRY_AFTER)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise _GivenUp(_in_short(error, url)) from error
    raise AssertionError


def _read(response: requests.Response, url: str) -> bytes:
    """Return the bytes that have arrived, not unzipped, without waiting for a full buffer."""
    try:
        data: bytes = response.raw.read1(_PIECE, decode_content=False)
        return data
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _GivenUp(_in_short(error, url)) from error


def _in_short(error: Exception, url: str) -> str:
    """Return the kind of a failure in a few words; the exception's own message has several lines."""
    name = type(error).__name__
    known = {
        "ConnectTimeout": "no answer in time",
        "ReadTimeout": "no answer in time",
        "ReadTimeoutError": "no answer in time",
        "SSLError": "no trusted connection",
        "ConnectionError": "no connection",
        "ProtocolError": "the connection broke",
        "TooManyRedirects": "it leads from one address to another without end",
    }
    if name in known:
        return known[name]
    return f"no connection through the proxy of {proxy}" if (proxy := _proxy(url)) else name


def _proxy(url: str) -> str:
    """Return the environment variable that sets a proxy for ``url``, and its value without password."""
    scheme = urlsplit(url).scheme
    for variable in (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"):
        if value := os.environ.get(variable):
            return f"{variable}={re.sub(r'//[^/@]*@', '//***@', value)}"
    return ""
