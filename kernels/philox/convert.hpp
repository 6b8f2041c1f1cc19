// float32 from and to the half precisions, in loops that compilers vectorise.
#pragma once

#include "lanes.hpp"

namespace {

INLINE float from_bfloat16(std::uint16_t x) { return bits<float>(std::uint32_t{x} << 16); }

INLINE std::uint16_t to_bfloat16(float x) {  // to nearest, ties to even
    const std::uint32_t u = bits<std::uint32_t>(x);
    const std::uint32_t rounded = (u + 0x7FFF + (u >> 16 & 1)) >> 16;
    return static_cast<std::uint16_t>(x != x ? 0x7FC0 : rounded);
}

INLINE float from_float16(std::uint16_t x) {
    const std::uint32_t sign = std::uint32_t{x} << 16 & 0x80000000u, rest = x & 0x7FFFu;
    // Multiplied by 2^112 the exponent is right, subnormal numbers too; infinity and NaN are not.
    std::uint32_t u = bits<std::uint32_t>(bits<float>(rest << 13) * 0x1p112f);
    u |= rest >= 0x7C00u ? 0x7F800000u : 0u;
    return bits<float>(u | sign);
}

INLINE std::uint16_t to_float16(float x) {  // to nearest, ties to even
    const std::uint32_t u = bits<std::uint32_t>(x), sign = u & 0x80000000u, rest = u ^ sign;
    // Small results: adding 0.5 leaves the 2^-24 grid of float16's subnormal numbers in the last bits.
    const std::uint32_t small = bits<std::uint32_t>(bits<float>(rest) + 0.5f) - 0x3F000000u;
    const std::uint32_t normal = (rest - (112u << 23) + 0xFFF + (rest >> 13 & 1)) >> 13;
    std::uint32_t half = rest < (113u << 23) ? small : normal;
    half = rest >= 0x47800000u ? 0x7C00u : half;  // 65536 and above
    half = rest > 0x7F800000u ? 0x7E00u : half;
    return static_cast<std::uint16_t>(half | sign >> 16);
}

#if defined(__GNUC__) && defined(__F16C__)
INLINE void float16_block(const std::uint16_t *from, float *to) {
    _mm256_storeu_ps(to, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)));
}
INLINE void float16_block(const float *from, std::uint16_t *to) {
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(_mm256_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT));
}
constexpr int FLOAT16_BLOCK = 8;
#else
INLINE void float16_block(const std::uint16_t *, float *) {}
INLINE void float16_block(const float *, std::uint16_t *) {}
constexpr int FLOAT16_BLOCK = 0;
#endif

inline void from_float16(const std::uint16_t *from, std::int64_t n, float *to) {
    std::int64_t i = 0;
    if (FLOAT16_BLOCK)
        for (; i + FLOAT16_BLOCK <= n; i += FLOAT16_BLOCK) float16_block(from + i, to + i);
    for (; i < n; ++i) to[i] = from_float16(from[i]);
}

inline void to_float16(const float *from, std::int64_t n, std::uint16_t *to) {
    std::int64_t i = 0;
    if (FLOAT16_BLOCK)
        for (; i + FLOAT16_BLOCK <= n; i += FLOAT16_BLOCK) float16_block(from + i, to + i);
    for (; i < n; ++i) to[i] = to_float16(from[i]);
}

inline void from_bfloat16(const std::uint16_t *from, std::int64_t n, float *to) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = from_bfloat16(from[i]);
}

inline void to_bfloat16(const float *from, std::int64_t n, std::uint16_t *to) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = to_bfloat16(from[i]);
}

}  // namespace
