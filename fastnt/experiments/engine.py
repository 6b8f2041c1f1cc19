"""The engine of a study: hands points to workers and writes the rows that they return.

One process hands out points and writes their rows. It holds a lock for each point that it handed out,
so that another process that runs the same study takes other points. If a process is killed, each
point is in the database as a whole or not at all, and trainings go on from their checkpoints.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from fastnt.errors import UserError
from fastnt.experiments.keeper import StudyKeeper
from fastnt.experiments.lab import StudySetup
from fastnt.experiments.store import Row, Store
from fastnt.experiments.study import Point
from fastnt.experiments.watch import Watch
from fastnt.experiments.workers import Workers
from fastnt.files import Busy, locked

_PATIENCE = 1.0  # seconds between two checks of points that another process trains


@dataclass
class Engine:
    """Trains the points of a study; call ``run``."""

    setup: StudySetup
    store: Store
    workers: Workers
    watch: Watch
    stop_asked: Callable[[], bool]
    trained: int = 0
    failed: list[Row] = field(default_factory=list)

    def run(self, points: Sequence[tuple[Point, str]]) -> bool:
        """Train all points (with their keys) that the database lacks; return whether all are done.

        A point that failed counts as done; its row is in ``failed``.

        Raises:
            UserError: the database or a checkpoint cannot be written, or a worker died.
        """
        self.workers.attend(self.watch.advance, self.stop_asked)
        waiting = _distinct(points)
        running: dict[Future[Row | None], tuple[str, ExitStack]] = {}
        stopping = cut = False
        with ExitStack() as held:
            while waiting or running:
                if not stopping and self.stop_asked():
                    stopping = True
                    self.workers.stop()
                if stopping and not running:
                    break
                if waiting and not stopping and len(running) < self.workers.count:
                    waiting = self._hand_out(waiting, running, held)
                if running:
                    done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                    self.workers.poll()
                    for future in done:
                        key, lock = running.pop(future)
                        cut |= self._take(future, key) is None
                        lock.close()
                        with suppress(OSError):  # an earlier process may have left files in it
                            self.setup.in_progress(key).rmdir()
                elif waiting:
                    time.sleep(_PATIENCE)
        return not waiting and not cut

    def _hand_out(
        self,
        waiting: list[tuple[Point, str]],
        running: dict[Future[Row | None], tuple[str, ExitStack]],
        held: ExitStack,
    ) -> list[tuple[Point, str]]:
        """Hand out points while workers are free; return the points still to be trained."""
        done = self.store.finished(key for _, key in waiting)
        left = []
        for point, key in waiting:
            if key in done:
                self.watch.skip(key)
                continue
            lock = ExitStack() if len(running) < self.workers.count else None
            if lock is None or not self._lock(lock, key):
                left.append((point, key))
                continue
            if self.store.finished(
                [key]
            ):  # another process, which held the lock until now, trained it
                lock.close()
                self.watch.skip(key)
                continue
            self.watch.begin(point, key)
            running[self.workers.submit(point, key)] = (key, held.enter_context(lock))
        return left

    def _lock(self, lock: ExitStack, key: str) -> bool:
        try:
            lock.enter_context(locked(self.setup.in_progress(key) / "lock", busy=key))
        except Busy:
            return False
        return True

    def _take(self, future: Future[Row | None], key: str) -> Row | None:
        """Write the row that a worker returned, and return it; None: the training was stopped."""
        try:
            row = future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that trained a point was killed, perhaps for want of memory; run the same "
                "command again, with fewer --jobs: what was finished is kept, the rest goes on"
            ) from error
        if row is None:
            return None
        self.store.put("points", row)
        StudyKeeper(self.setup.in_progress(key), self.stop_asked).clear()
        if row["error"]:
            self.failed.append(row)
        else:
            self.trained += 1
        self.watch.end(key, row)
        return row


def _distinct(points: Sequence[tuple[Point, str]]) -> list[tuple[Point, str]]:
    """Return one point for each key: two settings may mean the same training."""
    return list({key: (point, key) for point, key in points}.values())
