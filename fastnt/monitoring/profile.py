"""Profile training steps: the time of each section, and a Chrome trace.

    with StepProfile(device, trace=folder / "trace.json") as profile:
        for ...:
            with profile.record("data"):
                batch = next(batches)
            with profile.record("forward"):
                ...
            profile.end_step()
    profile.summary()

The first steps warm up. The next are timed without torch's profiler, whose cost would distort them. The
next are traced. Later steps, and steps outside ``with``, are not profiled and cost almost nothing.
A step begins with its first section: what lies between two steps, such as an evaluation, is of neither.
On a GPU, a section's time is the device's time between two events on the current stream. The section
"backward" therefore includes what autograd launches from its own thread. Nothing waits for the device
before :meth:`StepProfile.summary`. Steps replayed from a CUDA graph have no sections: profile without
graphs.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from fastnt.files import atomic_path

WARM_UP, STEPS = 5, 20
OTHER = "other"  # the name of the time that is in no section
_NOTHING: AbstractContextManager[None] = nullcontext()


@dataclass(frozen=True)
class Section:
    """A part of the step: its mean time in milliseconds, and its share of the step's time."""

    name: str
    milliseconds: float
    share: float


class StepProfile:
    """Times the sections of ``steps`` steps after ``warm_up`` others, then traces ``steps`` more."""

    def __init__(
        self,
        device: torch.device,
        *,
        trace: Path | None = None,
        steps: int = STEPS,
        warm_up: int = WARM_UP,
    ) -> None:
        """Write a Chrome trace (JSON) to ``trace``, unless it is None."""
        self._device, self._trace = device, trace
        self._timed = range(warm_up, warm_up + steps)
        self._traced = range(warm_up + steps, warm_up + 2 * steps if trace else 0)
        self._step = 0
        self._profiler: Any = None
        self._spans: list[tuple[str, Any, Any]] = []  # name, time before, time after
        self._begin: Any = None  # of the timed step that goes on
        self._step_times: list[tuple[Any, Any]] = []  # begin and end of each timed step

    def __enter__(self) -> Self:
        """Begin the first step."""
        self._turn()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write the trace, if training ended before all traced steps."""
        self._stop_trace()

    @property
    def done(self) -> bool:
        """Whether all timed and traced steps have ended."""
        return self._step >= max(self._timed.stop, self._traced.stop)

    def record(self, section: str) -> AbstractContextManager[None]:
        """Return a context whose time counts as ``section``; contexts may not be nested."""
        if self._step in self._timed:
            return self._time(section)
        if self._profiler is not None:
            return self._mark(section)
        return _NOTHING

    def end_step(self) -> None:
        """End the current step; the next begins with its first section."""
        if self._begin is not None:
            self._step_times.append((self._begin, self._clock()))
            self._begin = None
        self._step += 1
        self._turn()

    def summary(self) -> list[Section]:
        """Return the sections in the order of their first use, and last the time in no section.

        The list is empty if no step was timed.
        """
        if not self._step_times:
            return []
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        whole = sum(self._between(*step) for step in self._step_times)
        sums: dict[str, float] = {}
        for name, begin, end in self._spans:
            sums[name] = sums.get(name, 0.0) + self._between(begin, end)
        sums[OTHER] = whole - sum(sums.values())
        return [
            Section(name, each / len(self._step_times), each / whole) for name, each in sums.items()
        ]

    def _turn(self) -> None:
        """Start or stop tracing, as the step that begins needs."""
        if self._step in self._traced and self._profiler is None:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if self._device.type == "cuda":
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profiler = torch.profiler.profile(activities=activities)
            self._profiler.start()
        elif self._step == self._traced.stop:
            self._stop_trace()

    def _stop_trace(self) -> None:
        if self._profiler is None or self._trace is None:
            return
        self._profiler.stop()
        with atomic_path(self._trace) as temporary:
            self._profiler.export_chrome_trace(str(temporary))
        self._profiler = None

    @contextmanager
    def _time(self, section: str) -> Iterator[None]:
        begin = self._clock()
        self._begin = begin if self._begin is None else self._begin
        yield
        self._spans.append((section, begin, self._clock()))

    @contextmanager
    def _mark(self, section: str) -> Iterator[None]:
        with torch.profiler.record_function(section):
            yield

    def _clock(self) -> Any:
        """Return the current time: in seconds, or as an event on the GPU's current stream."""
        if self._device.type != "cuda":
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _between(self, begin: Any, end: Any) -> float:
        """Return the milliseconds between two times."""
        if self._device.type != "cuda":
            return 1e3 * float(end - begin)
        return float(begin.elapsed_time(end))
