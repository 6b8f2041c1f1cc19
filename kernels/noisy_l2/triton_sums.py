"""The last additions, in a fixed order, and the gradient's last multiplication."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl


@triton.jit
def finish(sums, loss, ticket, count, BLOCK: tl.constexpr):
    """Let the program that comes last add the sums of all ``count`` programs, at most BLOCK.

    The ticket counts those that have stored theirs; it is 0 before the launch and after it.
    """
    if tl.atomic_add(ticket, 1, sem="acq_rel", scope="gpu") == count - 1:
        i = tl.arange(0, BLOCK)
        # From the L2 cache, where all programs find what the others have written.
        parts = tl.load(sums + i, mask=i < count, other=0.0, cache_modifier=".cg")
        tl.store(loss, tl.sum(parts, 0))
        tl.store(ticket, 0)


@triton.jit(do_not_specialize=["count"])
def sum_kernel(sums, loss, count, BLOCK: tl.constexpr):
    """Add each row of ``sums`` (rows, count), giving ``loss`` (rows,)."""
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, count, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.load(sums + row * count + i, mask=i < count, other=0.0)
    tl.store(loss + row, tl.sum(total, 0))


@triton.jit(do_not_specialize=["size", "stride", "chunks"])
def scale_kernel(
    grad,  # (S, N, C), contiguous, of which each student has ``size`` elements
    scaled,  # the same shape: grad itself, or of another dtype
    factors,  # (S,) float32
    size,
    stride,  # of the factors, 0: one for all
    chunks,  # programs of a student, which take turns
    RUN: tl.constexpr,
    BLOCK: tl.constexpr,
    IN_PLACE: tl.constexpr,  # 1: nothing is to be done for a factor of 1
):
    """Multiply each student's gradient by the gradient of its loss."""
    s = (tl.program_id(0) // chunks).to(tl.int64)
    first = (tl.program_id(0) % chunks).to(tl.int64) * (RUN * BLOCK)
    factor = tl.load(factors + s * stride)
    if not IN_PLACE or factor != 1.0:
        for start in range(first, size, chunks * (RUN * BLOCK)):
            for turn in range(RUN):
                i = start + turn * BLOCK + tl.arange(0, BLOCK)
                product = (
                    tl.load(grad + s * size + i, mask=i < size, other=0.0).to(tl.float32) * factor
                )
                tl.store(scaled + s * size + i, product.to(scaled.dtype.element_ty), mask=i < size)
