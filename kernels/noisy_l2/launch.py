"""Launch parameters of the Triton kernel, by shape alone: the same shape gives the same bits.

The evidence is the machine code (see benchmarks/NOTES.md, "Triton kernel"); none of these figures
has been timed on a GPU yet.

    up to 16384 padded elements   one program: loss and gradient in one launch, a second one would
                                  cost more than the work (1024 x 16 are 16 elements a thread)
    up to 32 classes              tiles of 2048 elements: rows too short to be skipped one by one
    more classes                  a program a row, which draws nothing where the mask leaves it out
    more than 1024 (two-byte      blocks of that many, 128 threads with two 16-byte loads of each
    types: 2048)                  input in flight; up to 8 blocks a program, fewer while there
                                  would be less than 4096 programs (15 for each of 264 places)
"""

from typing import NamedTuple


class Launch(NamedTuple):
    """What a program takes, and how many warps it has."""

    rows: int
    block: int  # classes at a time
    chunk: int  # classes in all, a multiple of block
    calls: int  # of Philox, one after the other in a thread: 4 neighbouring classes each
    warps: int


def choose_launch(students: int, samples: int, classes: int, itemsize: int) -> Launch:
    """Return the launch parameters; ``itemsize`` is the student's, in bytes."""
    padded = _power_of_2(classes, 4)
    if samples * padded <= 16384:
        rows = _power_of_2(samples, 1)
        return Launch(rows, padded, padded, 1, _warps(rows * padded))
    if padded <= 32:
        return Launch(2048 // padded, padded, padded, 1, _warps(2048))
    calls = 2 if itemsize == 2 else 1
    block = min(padded, 1024 * calls)
    blocks = -(-classes // block)
    chunks = students * samples * blocks // 4096
    run = 8 if chunks >= 8 else 4 if chunks >= 4 else 2 if chunks >= 2 else 1
    warps = min(4, max(1, block // (128 * calls)))
    return Launch(1, block, block * run, calls, warps)


def _power_of_2(number: int, least: int) -> int:
    """Return the power of 2 that is no less than either, by comparisons alone (symbolic sizes)."""
    while least < number:
        least *= 2
    return least


def _warps(elements: int) -> int:
    """Return the warps that leave a thread 8 elements, but at most 32."""
    return min(32, max(1, elements // 256))
