"""The noise stream in Triton: functions for kernels, defined by `fastnt.kernels.philox.eager`.

A round of Philox takes both halves of two 32 x 32 bit products; each is one wide multiplication.

A block's words 0 and 1 (2 and 3 likewise) give two normals by Box-Muller. With the 23 bits k of a
word, f = 1 + k 2^-23 is its mantissa and u = f - (1 - 2^-24) the uniform, both exact:

    r = sqrt(-2 ln u0),  n0 = r cos(2 pi u1),  n1 = r sin(2 pi u1)

APPROX = 1 is for NVIDIA: the hardware's lg2, sqrt, sin and cos (their errors: PTX ISA 8.5, 9.7.3).
    lg2 has an absolute error of 2^-22 near u = 1, where ln u goes to 0. Above 1 - 2^-11 the radius
    takes -ln u = 1 - u instead, short by less than (1 - u)^2 / 2: that and the error of lg2 below
    move r by at most 5.3e-6. The angle is v = 2 pi (u - 1/2), in (-pi, pi), where sin and cos are
    within 2^-20.5 and need no range reduction; r is at most 5.8. In all |error| < 8e-6, of the
    1e-5 + 1e-5 |n| that is allowed.
APPROX = 0 is plain Triton for all others: polynomials (Cephes' logf, sinf and cosf) on exactly
    reduced arguments.

Every product that feeds a sum is an explicit fma, so that the result does not depend on what the
compiler fuses.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl

NOISE = tl.constexpr(0)
MASK = tl.constexpr(1)
SHARED_NOISE = tl.constexpr(2)
AUGMENT = tl.constexpr(3)
RANDOM_SIGMA = tl.constexpr(4)

_TWO_PI = tl.constexpr(6.283185307179586)
# 3 pi, less 2 pi 2^-24: takes f in [1, 2) to the angle of u - 1/2.
_ANGLE_OFFSET = tl.constexpr(9.424777586260)
_MINUS_LN2_TIMES_2 = tl.constexpr(-1.3862943611198906)


@triton.jit
def philox4x32(c0, c1, c2, c3, seed):
    """Return the four words of each block; uint32 counters that broadcast, int64 scalar seed."""
    key0 = seed.to(tl.uint32)
    key1 = (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        product0 = c0.to(tl.uint64) * 0xD2511F53
        product1 = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (product1 >> 32).to(tl.uint32) ^ c1 ^ key0
        c1 = product1.to(tl.uint32)
        c2 = (product0 >> 32).to(tl.uint32) ^ c3 ^ key1
        c3 = product0.to(tl.uint32)
        key0 += 0x9E3779B9
        key1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def first_word(c0, c1, c2, c3, seed):
    """Return word 0 of each block."""
    word, _, _, _ = philox4x32(c0, c1, c2, c3, seed)
    return word


@triton.jit
def uniform24(word):
    """Map words to float32 in [0, 1) on the grid of 2^-24, for comparing with alpha."""
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def mantissa(word):
    """Return 1 + k 2^-23 of the upper 23 bits k, float32 in [1, 2)."""
    return ((word >> 9) + 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
def uniform23(word):
    """Map words to float32 in (0, 1) on the odd multiples of 2^-24."""
    return mantissa(word) - 0.999999940395355224609375


@triton.jit
def _asm(x, INSTRUCTION: tl.constexpr):
    return tl.inline_asm_elementwise(
        INSTRUCTION + " $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _radius(word, APPROX: tl.constexpr):
    u = uniform23(word)
    if APPROX:
        square = _asm(u, "lg2.approx.ftz.f32") * _MINUS_LN2_TIMES_2
        square = tl.where(u > 0.99951171875, tl.fma(u, -2.0, 2.0), square)
        radius = _asm(square, "sqrt.approx.ftz.f32")
    else:
        # u = 2^e (1 + t), with 1 + t in [sqrt(1/2), sqrt(2))
        bits = u.to(tl.int32, bitcast=True)
        e = (bits - 0x3F3504F3) >> 23
        t = (bits - (e << 23)).to(tl.float32, bitcast=True) - 1.0
        p = tl.fma(t, 7.0376836292e-2, -1.1514610310e-1)
        p = tl.fma(t, p, 1.1676998740e-1)
        p = tl.fma(t, p, -1.2420140846e-1)
        p = tl.fma(t, p, 1.4249322787e-1)
        p = tl.fma(t, p, -1.6668057665e-1)
        p = tl.fma(t, p, 2.0000714765e-1)
        p = tl.fma(t, p, -2.4999993993e-1)
        p = tl.fma(t, p, 3.3333331174e-1)
        log = tl.fma(t * t, tl.fma(t, p, -0.5), t)
        log = tl.fma(e.to(tl.float32), 0.6931471805599453, log)
        radius = tl.sqrt(-2.0 * log)
    return radius


@triton.jit
def _minus_cos_sin(word, APPROX: tl.constexpr):
    """Return -cos(2 pi u) and -sin(2 pi u): the cosine and sine of 2 pi (u - 1/2)."""
    if APPROX:
        angle = tl.fma(mantissa(word), _TWO_PI, -_ANGLE_OFFSET)
        cos = _asm(angle, "cos.approx.ftz.f32")
        sin = _asm(angle, "sin.approx.ftz.f32")
    else:
        v = uniform23(word) - 0.5
        quadrant = tl.floor(tl.fma(v, 4.0, 0.5))
        x = tl.fma(quadrant, -0.25, v) * _TWO_PI  # in [-pi/4, pi/4]
        xx = x * x
        p = tl.fma(xx, -1.9515295891e-4, 8.3321608736e-3)
        p = tl.fma(xx, p, -1.6666654611e-1)
        s = tl.fma(x * xx, p, x)
        p = tl.fma(xx, 2.443315711809948e-5, -1.388731625493765e-3)
        p = tl.fma(xx, p, 4.166664568298827e-2)
        c = tl.fma(xx * xx, p, tl.fma(xx, -0.5, 1.0))
        turns = quadrant.to(tl.int32) & 3
        odd = (turns & 1) != 0
        cos = tl.where(odd, s, c)
        sin = tl.where(odd, c, s)
        cos = tl.where((turns == 1) | (turns == 2), -cos, cos)
        sin = tl.where(turns >= 2, -sin, sin)
    return cos, sin


@triton.jit
def normals(w0, w1, w2, w3, offset, scale, APPROX: tl.constexpr):
    """Return offset + scale * n for the four standard normals n of each block."""
    r = _radius(w0, APPROX) * -scale
    cos, sin = _minus_cos_sin(w1, APPROX)
    n0, n1 = tl.fma(r, cos, offset), tl.fma(r, sin, offset)
    r = _radius(w2, APPROX) * -scale
    cos, sin = _minus_cos_sin(w3, APPROX)
    n2, n3 = tl.fma(r, cos, offset), tl.fma(r, sin, offset)
    return n0, n1, n2, n3
