"""Trains what a study still lacks: in this process, in several, or on Ray's machines.

This process alone hands points out and writes their rows. It holds a lock for each point that it
handed out, so that another process on the same studies takes other points. Whatever dies, a point is
whole in the database or not there, and what was in progress goes on from its checkpoint.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from fastnt.errors import UserError
from fastnt.experiments.keeper import StudyKeeper
from fastnt.experiments.lab import Place
from fastnt.experiments.store import Row, Store
from fastnt.experiments.study import Point
from fastnt.experiments.watch import Watch
from fastnt.experiments.workers import Workers
from fastnt.files import locked

_PATIENCE = 1.0  # seconds between two looks at points that another process trains


@dataclass
class Engine:
    """Trains points; ``run`` does it all."""

    place: Place
    store: Store
    workers: Workers
    watch: Watch
    stop_asked: Callable[[], bool]
    budget: float | None = None  # seconds after which it stops as if asked to
    trained: int = 0
    failed: list[Row] = field(default_factory=list)

    def run(self, points: Sequence[tuple[Point, str]]) -> bool:
        """Train all points (with their keys) that the database lacks; tell whether all are there.

        A point that failed counts as there; ``failed`` has its row.

        Raises:
            UserError: the database or a checkpoint cannot be written, or a worker died.
        """
        deadline = None if self.budget is None else time.monotonic() + self.budget
        waiting = _distinct(points)
        running: dict[Future[Row | None], tuple[str, ExitStack]] = {}
        stopping = False
        with ExitStack() as held:
            while waiting or running:
                late = deadline is not None and time.monotonic() >= deadline
                if not stopping and (self.stop_asked() or late):
                    stopping = True
                    self.workers.stop()
                if stopping and not running:
                    break
                if not stopping and len(running) < self.workers.count:
                    waiting = self._hand_out(waiting, running, held)
                if running:
                    done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                    for future in done:
                        key, lock = running.pop(future)
                        self._take(future, key)
                        lock.close()
                        with suppress(OSError):  # where an earlier process left it
                            self.place.in_progress(key).rmdir()
                elif waiting:
                    time.sleep(_PATIENCE)
        return not waiting and not stopping

    def _hand_out(
        self,
        waiting: list[tuple[Point, str]],
        running: dict[Future[Row | None], tuple[str, ExitStack]],
        held: ExitStack,
    ) -> list[tuple[Point, str]]:
        """Hand out points while workers are free; return those that are still to be looked at."""
        done = self.store.finished(key for _, key in waiting)
        done |= {row["key"] for row in self.failed}
        left = []
        for point, key in waiting:
            if key in done:
                self.watch.found(key)
                continue
            lock = ExitStack() if len(running) < self.workers.count else None
            if lock is None or not self._lock(lock, key):
                left.append((point, key))
                continue
            if self.store.finished([key]):  # by whoever held the lock until now
                lock.close()
                self.watch.found(key)
                continue
            self.watch.begin(point, key)
            running[self.workers.submit(point, key)] = (key, held.enter_context(lock))
        return left

    def _lock(self, lock: ExitStack, key: str) -> bool:
        try:
            lock.enter_context(locked(self.place.in_progress(key) / "lock", busy=key))
        except UserError as error:
            if str(error) == key:
                return False
            raise
        return True

    def _take(self, future: Future[Row | None], key: str) -> None:
        """Write what a worker found; None means that it was stopped."""
        try:
            row = future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that trained a point was killed, perhaps for want of memory; run the same "
                "command again, with fewer --jobs: what was finished is kept, the rest goes on"
            ) from error
        if row is None:
            return
        self.store.put("points", row)
        StudyKeeper(self.place.in_progress(key), self.stop_asked).clear()
        if row["error"]:
            self.failed.append(row)
        else:
            self.trained += 1
        self.watch.end(key, row)


def _distinct(points: Sequence[tuple[Point, str]]) -> list[tuple[Point, str]]:
    """Each key once: two settings may come to the same training."""
    return list({key: (point, key) for point, key in points}.values())
