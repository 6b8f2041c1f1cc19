"""stdout and stderr of the program: no text and no broken pipe of theirs ends in a traceback."""

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO


class _Handle(io.RawIOBase):
    """A file handle whose failures are kept in ``failure`` instead of raised.

    When the reader has gone, the program is interrupted as by Ctrl-C: a training is saved.
    """

    failure: OSError | None = None

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def fileno(self) -> int:
        return self._handle

    def isatty(self) -> bool:
        return os.isatty(self._handle)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.failure is None:
            try:
                return os.write(self._handle, data)
            except OSError as error:
                self.failure = error
                if error.errno == errno.EPIPE:
                    signal.raise_signal(signal.SIGINT)
        return len(data)


def reader_gone() -> bool:
    """Tell whether whoever read stdout has gone, as after ``| head``."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _Handle) and raw.failure is not None


@contextmanager
def results_alone() -> Iterator[None]:
    """Within the block what a user's network prints goes to stderr: stdout is for results."""
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def guarded_output() -> Iterator[None]:
    """Within the block nothing that is printed raises; what an encoding lacks is written as \\u....

    Raises:
        SystemExit: with code 2, after a sentence, where stdout took not all, as on a full disk.
    """
    before = sys.stdout, sys.stderr
    out, err = _Handle(1), _Handle(2)
    sys.stdout, sys.stderr = _stream(out, sys.stdout), _stream(err, sys.stderr)
    try:
        yield
    finally:
        _flush()
        sys.stdout, sys.stderr = before
        if out.failure is not None and out.failure.errno != errno.EPIPE:
            os.write(
                2, f"fastnt: error: cannot write its output: {out.failure.strerror}\n".encode()
            )
            os._exit(2)  # Python itself would try to flush again, and complain


def _stream(raw: _Handle, like: TextIO | None) -> TextIO:
    if like is None:  # the program was started with it closed: its number may be another file's
        return io.StringIO()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=like.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except KeyboardInterrupt:  # the reader has gone
            stream.flush()
