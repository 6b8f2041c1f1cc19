"""The noise stream in eager PyTorch: the definition every other version is held to.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with

    key        seed modulo 2^64, low word first
    counter 0  class group c // 4 (0 where there are no classes)
    counter 1  row: the sample's place in the training list
    counter 2  step (streams AUGMENT and ORDER: the epoch)
    counter 3  stream + 256 * teacher

Words are int64 tensors that hold values in [0, 2^32): torch has no full arithmetic on uint32. No
product overflows int64: overflow is undefined in C++, which torch.compile generates, so that compiled
words would be wrong.
"""

import math

import torch
from torch import Tensor

NOISE, MASK, SHARED_NOISE, AUGMENT, RANDOM_SIGMA, ORDER = range(6)

_LOW = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers, both above 2^31
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # Weyl increments of the key
Words = tuple[Tensor, Tensor, Tensor, Tensor]


def as_int64(seed: int) -> int:
    """Return the int64 with the same 64 bits as ``seed`` modulo 2^64."""
    if -(1 << 63) <= seed < 1 << 63:  # symbolic integers of torch.compile are always in this range
        return seed
    seed &= (1 << 64) - 1
    return seed - (1 << 64) if seed >> 63 else seed


def as_tensor(value: int | Tensor, device: torch.device) -> Tensor:
    """Return a seed or counter as a 0-D int64 tensor on the device; a tensor is returned as it is."""
    if isinstance(value, Tensor):
        return value
    return torch.full((), as_int64(value), dtype=torch.int64, device=device)


def _multiply(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Return the high and the low word of the product.

    With multiplier - 2^32, which is between -2^30 and 0, the product stays above -2^62. Its low
    word is the same, and its high word lacks ``word``.
    """
    product = word * (multiplier - (1 << 32))
    return (product >> 32) + word, product & _LOW


def philox4x32(
    counter0: Tensor | int,
    counter1: Tensor | int,
    counter2: Tensor | int,
    counter3: Tensor | int,
    seed: Tensor,
) -> Words:
    """Return the four words of each block.

    The int64 arguments broadcast; counters count modulo 2^32, ``seed`` holds the 64 key bits.
    """
    c0, c1, c2, c3 = (
        # torch.full fills on the device; a copy from the host would wait for it.
        (c if isinstance(c, Tensor) else torch.full((), c, dtype=torch.int64, device=seed.device))
        & _LOW
        for c in (counter0, counter1, counter2, counter3)
    )
    key0, key1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(10):
        (high0, low0), (high1, low1) = _multiply(c0, _M0), _multiply(c2, _M1)
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = (key0 + _W0) & _LOW, (key1 + _W1) & _LOW
    return c0, c1, c2, c3


def uniform24(word: Tensor) -> Tensor:
    """Map words to float32 in [0, 1) on the grid of 2^-24: exact, for comparing with alpha."""
    return (word >> 8).to(torch.float32) * 2.0**-24


def uniform23(word: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Map words to (0, 1), never 0 or 1, on the odd multiples of 2^-24: exact in float32."""
    return ((word >> 9).to(dtype) + 0.5) * 2.0**-23


def normals(words: Words, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return four standard normals a block, (..., 4): Box-Muller of words 0, 1 and of words 2, 3.

    ``dtype`` is the precision of the arithmetic: float64 gives the same normals, more exactly.
    """
    pairs = []
    for radius_word, angle_word in (words[:2], words[2:]):
        radius = torch.sqrt(-2.0 * torch.log(uniform23(radius_word, dtype)))
        angle = (2.0 * math.pi) * uniform23(angle_word, dtype)
        pairs += [radius * torch.cos(angle), radius * torch.sin(angle)]
    return torch.stack(pairs, dim=-1)
