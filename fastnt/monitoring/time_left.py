"""How long a run still takes, all its parts together."""

import time
from collections.abc import Callable, Sequence

from fastnt.monitoring.progress import Part

_WAIT = 1.0  # seconds that a part is watched before its speed is believed


class TimeLeft:
    """Estimates from the parts so far; one of a network not seen yet is taken by its multiplications."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        """Begin with nothing known; ``clock`` gives seconds, by default ``time.monotonic``."""
        self._clock = clock or time.monotonic
        self._parts: list[Part] = []
        self._current = -1  # index of the part that runs
        self._done = self._counted = 0  # images of it, and those of them that this process did
        self._begun = 0.0
        self._rates: dict[float, float] = {}  # seconds of one image, by its cost

    def expect(self, parts: Sequence[Part]) -> None:
        """Begin to estimate; without this nothing is known."""
        self._parts = list(parts)

    def begin(self, phase: str, done: int = 0) -> None:
        """A part begins, or goes on after ``done`` images; those before it are over."""
        later = range(self._current + 1, len(self._parts))
        found = [i for i in later if self._parts[i].phase == phase]
        self._current = found[0] if found else self._current
        self._done, self._counted, self._begun = done, 0, self._clock()

    def advance(self, images: int) -> None:
        """So many more images of the part are done."""
        self._done, self._counted = self._done + images, self._counted + images

    def fraction(self) -> float:
        """The part of all the arithmetic that is done, from 0 to 1."""
        whole = sum(part.images * part.cost for part in self._parts)
        return 1 - self._ahead(lambda part: part.cost) / whole if whole else 0.0

    def seconds(self) -> float | None:
        """The seconds left; None while nothing is known."""
        if self._current < 0:
            return None
        elapsed, cost = self._clock() - self._begun, self._parts[self._current].cost
        if self._counted and elapsed >= _WAIT:
            self._rates[cost] = elapsed / self._counted
        if not self._rates:
            return None
        nearest, rate = list(self._rates.items())[-1]
        return self._ahead(lambda part: self._rates.get(part.cost, rate * part.cost / nearest))

    def _ahead(self, of_image: Callable[[Part], float]) -> float:
        """Sum ``of_image`` over the images that are left."""
        if self._current < 0:
            return sum(part.images * of_image(part) for part in self._parts)
        running, *later = self._parts[self._current :]
        left = max(0, running.images - self._done) * of_image(running)
        return left + sum(part.images * of_image(part) for part in later)
