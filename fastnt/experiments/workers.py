"""Workers that train points: this process, a pool of processes, or tasks on a Ray cluster."""

import importlib
import multiprocessing
import os
import queue
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from fastnt.environment import keep_freed_memory
from fastnt.errors import UserError
from fastnt.experiments.keeper import Stopped
from fastnt.experiments.lab import Lab, StudySetup
from fastnt.experiments.store import Row
from fastnt.experiments.study import Point
from fastnt.interruption import SIGNALS, blocked_signals
from fastnt.monitoring.display import Silent
from fastnt.monitoring.progress import EpochRecord

# Takes the key of a training and the number of the epoch that it has ended, counted from 1.
OnProgress = Callable[[str, int], None]
StopAsked = Callable[[], bool]


class Workers(ABC):
    """Trains ``count`` points at a time."""

    count = 1

    def attend(self, on_progress: OnProgress, stop_asked: StopAsked) -> None:
        """Begin: call ``on_progress`` after each epoch, and stop trainings once ``stop_asked``.

        Where trainings run in other processes, ``poll`` reports, and ``stop`` stops.
        """
        self._on_progress, self._stop_asked = on_progress, stop_asked

    @abstractmethod
    def submit(self, point: Point, key: str) -> Future[Row | None]:
        """Train a point; the future gives its row, or None if the training was stopped."""

    def poll(self) -> None:  # noqa: B027  # not all have something to do
        """Report what the trainings have sent since the last call."""

    def stop(self) -> None:  # noqa: B027
        """Ask all trainings to stop; each saves its checkpoint."""

    def close(self) -> None:  # noqa: B027
        """Release the workers."""


class InProcess(Workers):
    """Trains in this process, one point after the other; each reports and stops as it goes on."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def submit(self, point: Point, key: str) -> Future[Row | None]:
        """Train the point now, and return a future that is done."""
        future: Future[Row | None] = Future()
        future.set_result(train_point(self._lab, point, key, self._on_progress, self._stop_asked))
        return future


class _Process(SpawnProcess):
    """A process that ignores signals: only this ends it, where the pool is broken."""

    def terminate(self) -> None:
        self.kill()


class _Spawn(SpawnContext):
    """Starts new interpreters, since a fork would copy torch's threads."""

    Process = _Process


class Processes(Workers):
    """A pool of processes on this machine, each with the study's threads."""

    def __init__(self, setup: StudySetup, count: int) -> None:
        """Start the processes; meanwhile this one may go on."""
        self.count = count
        context = _Spawn()
        self._messages, self._stop = context.Queue(), context.Event()
        self._pool = ProcessPoolExecutor(
            count, context, initializer=_begin, initargs=(setup, self._messages, self._stop)
        )
        with blocked_signals():  # the processes inherit this: none is interrupted while it imports
            for _ in range(count):  # a task starts a process if none is idle
                self._pool.submit(_ready)

    def submit(self, point: Point, key: str) -> Future[Row | None]:
        """Send the point to a free process."""
        try:
            return self._pool.submit(_train, point, key)
        except BrokenProcessPool as error:
            broken: Future[Row | None] = Future()
            broken.set_exception(error)
            return broken

    def poll(self) -> None:
        """Report what the processes have sent."""
        with suppress(queue.Empty):
            while True:
                self._on_progress(*self._messages.get_nowait())

    def stop(self) -> None:
        """Ask all processes to stop."""
        self._stop.set()

    def close(self) -> None:
        """End the processes."""
        self._stop.set()
        self._pool.shutdown()


class Ray(Workers):
    """Tasks on a Ray cluster, which report when they end; a task whose worker is lost runs again.

    All machines need the studies' folder and the cache folder at the same paths.
    """

    def __init__(self, setup: StudySetup, address: str | None) -> None:
        """Join the cluster at ``address``; None starts one on this machine.

        Raises:
            UserError: Ray is not installed, or there is no cluster.
        """
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "--engine ray needs the package ray; install it: python -m pip install 'fastnt[ray]'"
            ) from error
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except Exception as error:
            raise UserError(
                f"there is no Ray cluster at {address} ({error}); start one: ray start --head"
            ) from error
        self._ray, self._setup = ray, ray.put(setup)
        gpus = 1 if setup.device == "cuda" else 0
        kind, needed = ("GPU", 1) if gpus else ("CPU", setup.study.threads)
        there = ray.cluster_resources().get(kind, 0)  # type: ignore[no-untyped-call]
        self.count = int(there / needed)
        if not self.count:
            ray.shutdown()
            raise UserError(
                f"the Ray cluster has {there:g} {kind}s, and a training needs {needed}; start it with "
                f"more: ray start --num-{kind.lower()}s N"
            )
        self._task = ray.remote(
            num_cpus=setup.study.threads, num_gpus=gpus, max_retries=-1, retry_exceptions=False
        )(_train_anywhere)
        self._tasks: list[Any] = []

    def submit(self, point: Point, key: str) -> Future[Row | None]:
        """Start a Ray task that trains the point."""
        task = self._task.remote(self._setup, point, key)
        self._tasks.append(task)
        result: Future[Row | None] = Future()

        def end(done: Future[Row | None]) -> None:
            error = done.exception()
            if error is None:
                result.set_result(done.result())
            elif isinstance(error, self._ray.exceptions.TaskCancelledError):
                result.set_result(None)
            else:
                result.set_exception(error)

        task.future().add_done_callback(end)
        return result

    def stop(self) -> None:
        """Interrupt the tasks, which save their checkpoints."""
        for task in self._tasks:
            self._ray.cancel(task)

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


def train_point(
    lab: Lab, point: Point, key: str, on_progress: OnProgress, stop_asked: StopAsked
) -> Row | None:
    """Train a point and return its row, or None if the training was stopped."""
    watched = _Epochs(key, on_progress)
    try:
        return lab.train(point, key, watched, stop_asked)
    except Stopped:
        return None


class _Epochs(Silent):
    """Reports each epoch of a training."""

    def __init__(self, key: str, on_progress: OnProgress) -> None:
        self._key, self._on_progress = key, on_progress

    def end_epoch(self, record: EpochRecord) -> None:
        self._on_progress(self._key, record.epoch)


_lab: Lab
_messages: Any
_stop: Any


def _begin(setup: StudySetup, messages: Any, stop: Any) -> None:
    """Set a process of the pool up: it ignores signals, which the parent handles, and ends with it."""
    global _lab, _messages, _stop
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    keep_freed_memory()
    _lab, _messages, _stop = Lab(setup, Silent()), messages, stop
    importlib.import_module("torch.fx.experimental.symbolic_shapes")  # else the first backward does


def _ready() -> None:
    pass


def _die_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _train(point: Point, key: str) -> Row | None:
    return train_point(_lab, point, key, lambda *message: _messages.put(message), _stop.is_set)


_kept: tuple[StudySetup, Lab] | None = None


def _lab_of(setup: StudySetup) -> Lab:
    """Return the lab of the study; it stays open for the next task of the same study."""
    global _kept
    if _kept is None or _kept[0] != setup:
        keep_freed_memory()
        _kept = setup, Lab(setup, Silent())
    return _kept[1]


def _train_anywhere(setup: StudySetup, point: Point, key: str) -> Row | None:
    """Train a point in a process of Ray's; an interrupt stops the training."""
    asked = threading.Event()
    with suppress(ValueError):  # only a main thread may set a handler
        signal.signal(signal.SIGINT, lambda number, frame: asked.set())
    return train_point(_lab_of(setup), point, key, lambda *message: None, asked.is_set)
