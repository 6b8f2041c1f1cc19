"""Launch parameters of the Triton kernel: how its programs and threads share the work.

They depend on shape, dtype and layout alone, so that the same input gives the same bits. The evidence for
them is in benchmarks/NOTES.md, "Triton kernel". A unit is 4 classes; 8 with 16-byte loads of a two-byte
type.

Rows of few classes: a thread takes up to 5 units of a row, which share the mask's draw and the row's
addresses; it takes fewer units where 5 would leave the machine without threads. Programs have 128
threads. Up to 512 threads are one program, which needs no ticket. From half a million threads on, a
program takes four pieces one after the other, and adds its sums once.

Rows of many classes: a thread takes 8 classes of each block of 1024. A row that the mask leaves out draws
nothing. A program takes up to 8 blocks, fewer where there would be less than 1280 programs.

Few means below 4096 classes; below 65536 where rows are not aligned for 16-byte loads of float32, since a
long row's blocks cost more than they save there; below 2048 where each row has a loss of its own.

Sizes may be symbolic (torch.compile): they are compared, never rounded up by arithmetic on bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

THREADS = 128  # of most programs; the most shares of a short row that has a loss of its own
LONG, LONG_UNALIGNED = 4096, 65536  # classes from which a row is long
MOST_UNITS = 5
FINISHED = 2048  # the most sums that the last program of a launch adds
FILLED = 65536  # 2048 warps of 32: an H100 has 528 schedulers of warps


class Launch(NamedTuple):
    """How programs and threads share the work; see `fastnt.kernels.noisy_l2.triton_rows`."""

    programs: int  # of a student
    parts: int  # sums of each result that the programs leave
    classes: int  # C of short rows, 0 of long ones
    turns: int  # pieces of short rows that a program takes
    shares: int  # threads of a short row
    run: int  # blocks of a long row that a program takes
    threads: int
    units: int
    calls: int  # Philox calls of a unit
    vector: int  # classes that are loaded at once


def alignment_of(spans: Sequence[int], unit_stride: bool) -> int:
    """Return how many neighbouring classes the strides allow to load at once.

    ``spans`` are the number of classes and the strides of samples and students, in elements.
    """
    if not unit_stride:
        return 1
    return next(n for n in (8, 4, 2, 1) if all(span % n == 0 for span in spans))


def choose_launch(
    students: int,
    samples: int,
    classes: int,
    *,
    alignment: int,
    itemsize: int,
    per_sample: bool,
    filled: int = FILLED,
) -> Launch:
    """Return the launch parameters for student logits (students, samples, classes).

    Args:
        students: S.
        samples: N.
        classes: C.
        alignment: as `alignment_of` gives it.
        itemsize: bytes of a student's logit.
        per_sample: each sample has a loss of its own.
        filled: threads that keep the machine busy.
    """
    calls = 2 if itemsize == 2 and alignment == 8 and classes >= 64 else 1
    vector = min(alignment, 4 * calls)
    long = LONG // 2 if per_sample else LONG if alignment >= 4 else LONG_UNALIGNED
    if classes >= long:
        units = 2 // calls
        blocks = -(-classes // (THREADS * units * 4 * calls))
        enough = filled // 51  # programs: 1280 of THREADS each are all that an H100 runs at a time
        run = next((n for n in (8, 4, 2) if students * samples * blocks >= n * enough), 1)
        chunks = -(-blocks // run)
        parts = chunks if per_sample else samples * chunks
        return Launch(samples * chunks, parts, 0, 0, 1, run, THREADS, units, calls, vector)
    classes = int(classes)  # a constant of the machine code, which divides by it
    width = -(-classes // (4 * calls))
    # ptxas would keep some of 4 units of two-byte classes, loaded one by one, in local memory.
    unfit = 4 if itemsize == 2 and vector == 1 and not per_sample else 0
    shares, units = _choose_shares(students * samples, width, calls, per_sample, filled, unfit)
    total = samples * shares
    threads = THREADS
    if total <= 512 and not per_sample:
        threads = next(n for n in (32, 64, 128, 256, 512) if total <= n)
    pieces = -(-total // threads)
    turns = 4 if students * total >= 8 * filled else 1
    programs = -(-pieces // turns)
    parts = 1 if per_sample else programs
    return Launch(programs, parts, classes, turns, shares, 1, threads, units, calls, vector)


def _choose_shares(
    rows: int, width: int, calls: int, per_sample: bool, filled: int, unfit: int
) -> tuple[int, int]:
    """Return the threads of a row of ``width`` units, and the units of a thread, but not ``unfit``.

    Of the choices that keep the machine busy this is the one with the fewest instructions: a Philox call
    and what follows it take about 85, the rest of a thread 110.
    """
    if per_sample:  # powers of 2: the shares of a row are added by neighbouring threads
        candidates = [(n, -(-width // n)) for n in (1, 2, 4, 8, 16, 32, 64, 128)]
    else:
        candidates = [(-(-width // units), units) for units in range(1, MOST_UNITS + 1)]
    candidates = [c for c in candidates if c[1] <= MOST_UNITS and c[1] != unfit]
    busy = [c for c in candidates if rows * c[0] >= filled]
    if not busy:
        return min(candidates) if per_sample else max(candidates)
    return min(busy, key=lambda c: c[0] * (85 * calls * c[1] + 110))


def choose_sum(parts: int) -> tuple[int, int]:
    """Return how many sums a program loads at a time to add them, and how many threads it has.

    The last program of a launch adds up to FINISHED sums, all at once. More sums are added by a second
    kernel: logits (16800, 128256) leave a quarter of a million, and loading 1024 at a time would wait for
    memory 260 times, one after the other.
    """
    if parts > FINISHED:
        return 8192, 1024
    return next(n for n in (32, 128, 1024, FINISHED) if parts <= n), THREADS
