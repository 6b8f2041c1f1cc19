"""SIGINT, SIGTERM and SIGHUP while something is trained."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):  # the terminal was closed; Windows has none
    SIGNALS.append(signal.SIGHUP)


class Interruption:
    """Within it these signals raise KeyboardInterrupt; the first one waits in ``deferred`` blocks.

    Handlers are the main thread's alone, and a signal that is ignored stays so (``nohup``).
    """

    def __init__(self) -> None:
        self.arrived = False  # a signal that was deferred
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
        """Let the first signal only set ``arrived``: the block looks at it where it can stop."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.arrived:  # after the block looked for the last time
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._deferring and not self.arrived:
            self.arrived = True
        else:
            raise KeyboardInterrupt
