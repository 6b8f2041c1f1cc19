"""Handle SIGINT, SIGTERM and SIGHUP during a training."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):  # the signal of a closed terminal; Windows lacks it
    SIGNALS.append(signal.SIGHUP)


class Interruption:
    """A context in which these signals raise KeyboardInterrupt.

    In a ``deferred`` block, the first signal only sets ``arrived``. Only the main thread sets handlers.
    Signals that the process ignores, as under ``nohup``, stay ignored.
    """

    def __init__(self) -> None:
        self.arrived = False  # whether a signal came in a deferred block
        self._deferring = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the first signal only set ``arrived``, which the block reads where it can stop."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.arrived:  # the signal came after the block had read it for the last time
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._deferring and not self.arrived:
            self.arrived = True
        else:
            raise KeyboardInterrupt


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Hold these signals back from this thread, and for good from processes that the block starts."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
