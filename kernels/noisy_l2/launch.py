"""Launch parameters of the Triton kernel.

They depend on the shape alone: the same shape gives the same bits. The evidence for them is in
benchmarks/NOTES.md, "Triton kernel".

    classes  samples
    <= 32    <= 16384 / padded   one program: loss and gradient in one launch, where a second one
                                 would cost more than the work. 8192 padded elements at a time, 8
                                 a thread: with 16 the kernel spills
             more                tiles of 2048 elements, 8 a thread; rows are too short to be
                                 skipped one by one
    more     any                 a program a row: it draws nothing where the mask leaves the row
                                 out. Blocks of up to 1024 classes, 8 a thread; up to 8 blocks a
                                 program, fewer while there would be less than 4096 programs

Sizes may be symbolic (torch.compile): they are compared, never rounded up by arithmetic on bits.
"""

from typing import NamedTuple


class Launch(NamedTuple):
    """The rows and classes of a program, and its threads."""

    turns: int  # row blocks of a program, one after the other
    rows: int  # of a row block
    block: int  # classes of a block
    run: int  # blocks of classes of a program, one after the other
    threads: int  # with 8 elements of a block each


def choose_launch(students: int, samples: int, classes: int) -> Launch:
    """Return the launch parameters for student logits (students, samples, classes)."""
    padded = _power_of_2(classes, 4, 1024)
    if padded <= 32 and samples * padded <= 16384:
        rows = _power_of_2(samples, 1, 8192 // padded)
        return Launch(2 if samples > rows else 1, rows, padded, 1, _threads(rows * padded))
    if padded <= 32:
        return Launch(1, 2048 // padded, padded, 1, _threads(2048))
    work = students * samples * -(-classes // padded) // 4096
    run = 8 if work >= 8 else 4 if work >= 4 else 2 if work >= 2 else 1
    return Launch(1, 1, padded, run, _threads(padded))


def _power_of_2(number: int, least: int, most: int) -> int:
    """Return the least power of 2 that is no less than ``number``, within bounds."""
    while least < number and least < most:
        least *= 2
    return least


def _threads(elements: int) -> int:
    """Return the threads that have 8 elements each: at least a warp of 32."""
    return max(32, elements // 8)


def choose_sum(parts: int) -> tuple[int, int]:
    """Return how many sums the second kernel loads at a time, and its threads.

    One program adds the sums of a student. (16800, 128256) leaves a quarter of a million of them:
    loading 1024 at a time would wait for memory 260 times, one after the other.
    """
    block = 32 if parts <= 32 else 1024 if parts <= 8192 else 8192
    return block, _threads(block)
