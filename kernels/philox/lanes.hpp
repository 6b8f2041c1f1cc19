// Vectors of the machine's width, with C++'s operators.
//
// F, I and U have WIDTH 32-bit lanes, Q half as many 64-bit lanes. GCC and Clang have arithmetic on such
// vectors for every machine; operations that they lack are written for each instruction set. For other
// compilers a vector is an array. This header is compiled once for each instruction set, and the linker
// must not merge the copies: everything is in an unnamed namespace, and templates of the standard
// library, which it would merge, are avoided in favour of loops.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__GNUC__)
#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
#else
#define INLINE inline
#define INLINE_LAMBDA
#endif

namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

#if defined(__GNUC__)

typedef float F __attribute__((vector_size(WIDTH * 4)));
typedef std::int32_t I __attribute__((vector_size(WIDTH * 4)));
typedef std::uint32_t U __attribute__((vector_size(WIDTH * 4)));
typedef std::uint64_t Q __attribute__((vector_size(WIDTH * 4)));

INLINE F to_float(I x) { return __builtin_convertvector(x, F); }

#if defined(__clang__)
#define SHUFFLE(a, b, index) __builtin_shufflevector(a, b, index(Lane)...)
#else
#define SHUFFLE(a, b, index) __builtin_shuffle(a, b, I{index(Lane)...})
#endif

#else

template <class T, int N>
struct Array {
    T lane[N];
    T &operator[](int i) { return lane[i]; }
    T operator[](int i) const { return lane[i]; }
};
using F = Array<float, WIDTH>;
using I = Array<std::int32_t, WIDTH>;
using U = Array<std::uint32_t, WIDTH>;
using Q = Array<std::uint64_t, WIDTH / 2>;

#define OPERATOR(op)                                                   \
    template <class T, int N>                                          \
    INLINE Array<T, N> operator op(Array<T, N> a, Array<T, N> b) {     \
        for (int i = 0; i < N; ++i) a[i] = static_cast<T>(a[i] op b[i]); \
        return a;                                                      \
    }
OPERATOR(+) OPERATOR(-) OPERATOR(*) OPERATOR(&) OPERATOR(|) OPERATOR(^)
#undef OPERATOR
#define SHIFT(op)                                                      \
    template <class T, int N>                                          \
    INLINE Array<T, N> operator op(Array<T, N> a, int by) {            \
        for (int i = 0; i < N; ++i) a[i] = static_cast<T>(a[i] op by); \
        return a;                                                      \
    }
SHIFT(>>) SHIFT(<<)
#undef SHIFT

INLINE F to_float(I x) {
    F y;
    for (int i = 0; i < WIDTH; ++i) y[i] = static_cast<float>(x[i]);
    return y;
}

#define SHUFFLE(a, b, index) \
    F { (index(Lane) < WIDTH ? a[index(Lane) % WIDTH] : b[index(Lane) % WIDTH])... }

#endif

template <class To, class From>
INLINE To bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To y;
    std::memcpy(&y, &x, sizeof y);
    return y;
}

// One value in every lane.
template <class V, class T>
INLINE V all(T value) {
    V v;
    for (unsigned i = 0; i < sizeof(V) / sizeof(T); ++i) v[i] = value;
    return v;
}
INLINE F all(float value) { return all<F>(value); }
INLINE I all(std::int32_t value) { return all<I>(value); }
INLINE U all(std::uint32_t value) { return all<U>(value); }
INLINE Q all(std::uint64_t value) { return all<Q>(value); }

INLINE F load(const float *from) {
    F x;
    std::memcpy(&x, from, sizeof x);
    return x;
}
INLINE void store(float *to, F x) { std::memcpy(to, &x, sizeof x); }
INLINE U load(const std::uint32_t *from) {
    U x;
    std::memcpy(&x, from, sizeof x);
    return x;
}
INLINE void store(std::uint32_t *to, U x) { std::memcpy(to, &x, sizeof x); }

template <bool to_write>
INLINE void prefetch(const void *from) {
#if defined(__GNUC__)
    __builtin_prefetch(from, to_write);
#else
    (void)from;
#endif
}

// Returns the 64-bit products of the low halves, whatever the high halves hold.
INLINE Q multiply_low(Q a, Q b) {
#if defined(__GNUC__) && defined(__AVX512F__)
    return (Q)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__GNUC__) && defined(__AVX2__)
    return (Q)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__GNUC__) && defined(__SSE2__)
    return (Q)_mm_mul_epu32((__m128i)a, (__m128i)b);
#elif defined(__GNUC__) && defined(__aarch64__) && defined(__ARM_NEON)
    return (Q)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
#else
    const Q low = all(std::uint64_t{0xFFFFFFFF});
    return (a & low) * (b & low);
#endif
}

INLINE F square_root(F x) {
#if defined(__GNUC__) && defined(__AVX512F__)
    return (F)_mm512_sqrt_ps((__m512)x);
#elif defined(__GNUC__) && defined(__AVX2__)
    return (F)_mm256_sqrt_ps((__m256)x);
#elif defined(__GNUC__) && defined(__SSE2__)
    return (F)_mm_sqrt_ps((__m128)x);
#elif defined(__GNUC__) && defined(__aarch64__) && defined(__ARM_NEON)
    return (F)vsqrtq_f32((float32x4_t)x);
#else
    for (int i = 0; i < WIDTH; ++i) x[i] = std::sqrt(x[i]);
    return x;
#endif
}

// Shuffles, most of them within each 128 bits, which x86 has at every width. For each lane of the result
// an index function returns the lane of a (below WIDTH) or of b (from WIDTH on) that it takes.
template <int... Lane>
struct Shuffles {
    static constexpr int low_halves(int i) { return i / 4 * 4 + i % 2 * 2 + (i % 4 < 2 ? 0 : WIDTH); }
    static constexpr int zip_low(int i) { return i / 4 * 4 + i % 4 / 2 + (i % 2 ? WIDTH : 0); }
    static constexpr int zip_high(int i) { return zip_low(i) + 2; }
    static constexpr int pairs_low(int i) { return i / 4 * 4 + i % 2 + (i % 4 < 2 ? 0 : WIDTH); }
    static constexpr int pairs_high(int i) { return pairs_low(i) + 2; }

    // For 4 rows of WIDTH / 4: the first, third, second and fourth element of each column.
    static constexpr int columns(int i) {
        return (i % 4 == 1 ? 2 : i % 4 == 2 ? 1 : i % 4) * (WIDTH / 4) + i / 4;
    }

    template <int By>
    static constexpr int swap(int i) {
        return i ^ By;
    }

    // Returns the sum of all lanes, always added in the same order.
    static INLINE float sum(F x) {
        if constexpr (sizeof...(Lane) > 8) x = x + SHUFFLE(x, x, swap<8>);
        if constexpr (sizeof...(Lane) > 4) x = x + SHUFFLE(x, x, swap<4>);
        x = x + SHUFFLE(x, x, swap<2>);
        return x[0] + x[1];
    }

    static INLINE F even(F a, F b) { return SHUFFLE(a, b, low_halves); }
    static INLINE U by_columns(U x) { return bits<U>(SHUFFLE(bits<F>(x), bits<F>(x), columns)); }

    // Four vectors, of the first, second, third and fourth elements, become vectors of quadruples.
    static INLINE void transpose(F (&x)[4]) {
        const F a = SHUFFLE(x[0], x[1], zip_low), b = SHUFFLE(x[0], x[1], zip_high);
        const F c = SHUFFLE(x[2], x[3], zip_low), d = SHUFFLE(x[2], x[3], zip_high);
        x[0] = SHUFFLE(a, c, pairs_low);
        x[1] = SHUFFLE(a, c, pairs_high);
        x[2] = SHUFFLE(b, d, pairs_low);
        x[3] = SHUFFLE(b, d, pairs_high);
    }
};

#if defined(__AVX512F__)
using Shuffle = Shuffles<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>;
#elif defined(__AVX2__)
using Shuffle = Shuffles<0, 1, 2, 3, 4, 5, 6, 7>;
#else
using Shuffle = Shuffles<0, 1, 2, 3>;
#endif

// The low halves of a and b, the order within each 128 bits being a0 a1 b0 b1.
INLINE U pack(Q a, Q b) { return bits<U>(Shuffle::even(bits<F>(a), bits<F>(b))); }

}  // namespace
