// The noise stream that eager.py defines, WIDTH blocks at a time.
//
// A word is in the low half of a 64-bit lane, so that one multiplication gives the whole product of two
// words; the high half is arbitrary and never read. Two such vectors are packed for Box-Muller.
#pragma once

#include "lanes.hpp"
#include "stream.hpp"

namespace {

constexpr std::uint64_t M0 = 0xD2511F53, M1 = 0xCD9E8D57;
constexpr std::uint32_t W0 = 0x9E3779B9, W1 = 0xBB67AE85;

INLINE std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
INLINE std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

// The ten keys of a seed, in every lane.
struct Keys {
    Q key0[10], key1[10];

    explicit Keys(std::uint64_t seed) {
        for (std::uint32_t i = 0; i < 10; ++i) {
            key0[i] = all(std::uint64_t{low(low(seed) + i * W0)});
            key1[i] = all(std::uint64_t{low(high(seed) + i * W1)});
        }
    }
};

// Four words of WIDTH / 2 blocks.
struct Words {
    Q word0, word1, word2, word3;

    INLINE void round(const Keys &keys, int i) {
        const Q product0 = multiply_low(word0, all(M0)), product1 = multiply_low(word2, all(M1));
        word0 = (product1 >> 32) ^ word1 ^ keys.key0[i];
        word1 = product1;
        word2 = (product0 >> 32) ^ word3 ^ keys.key1[i];
        word3 = product0;
    }
};

// The blocks of one row. Only counter 0, the class group, differs between lanes, so that half of the
// first two rounds is computed once for all lanes.
class RowBlocks {
   public:
    RowBlocks(const Keys &keys, std::uint32_t row, std::uint32_t step, std::uint32_t stream)
        : keys(keys) {
        const std::uint64_t product1 = step * M1;
        const std::uint32_t word0 = high(product1) ^ row ^ low(keys.key0[0][0]);
        const std::uint64_t product0 = word0 * M0;
        first2 = all(std::uint64_t{stream ^ low(keys.key1[0][0])});
        second0 = all(std::uint64_t{low(product1) ^ low(keys.key0[1][0])});
        second2 = all(std::uint64_t{high(product0) ^ low(keys.key1[1][0])});
        second3 = all(std::uint64_t{low(product0)});
    }

    // Computes two vectors of blocks at a time: one is computed while the other waits for its product.
    INLINE void draw(Q group, Q other_group, Words &words, Words &others) const {
        words = two_rounds(group);
        others = two_rounds(other_group);
        for (int i = 2; i < 10; ++i) {
            words.round(keys, i);
            others.round(keys, i);
        }
    }

   private:
    INLINE Words two_rounds(Q group) const {
        const Q product0 = multiply_low(group, all(M0));
        const Q product1 = multiply_low((product0 >> 32) ^ first2, all(M1));
        return {(product1 >> 32) ^ second0, product1, product0 ^ second2, second3};
    }

    const Keys &keys;
    Q first2, second0, second2, second3;
};

// Blocks of several rows, for rows of few groups: group and row differ between lanes.
class MixedBlocks {
   public:
    MixedBlocks(const Keys &keys, std::uint32_t step, std::uint32_t stream) : keys(keys) {
        const std::uint64_t product1 = step * M1;
        first0 = all(std::uint64_t{high(product1) ^ low(keys.key0[0][0])});
        first1 = all(std::uint64_t{low(product1)});
        first2 = all(std::uint64_t{stream ^ low(keys.key1[0][0])});
    }

    // Computes the blocks whose groups and rows are in the low halves of the lanes.
    INLINE void draw(Q group, Q other_group, Q row, Q other_row, Words &words, Words &others) const {
        words = one_round(group, row);
        others = one_round(other_group, other_row);
        for (int i = 1; i < 10; ++i) {
            words.round(keys, i);
            others.round(keys, i);
        }
    }

   private:
    INLINE Words one_round(Q group, Q row) const {
        const Q product0 = multiply_low(group, all(M0));
        return {row ^ first0, first1, (product0 >> 32) ^ first2, product0};
    }

    const Keys &keys;
    Q first0, first1, first2;
};

// -2 ln u for u = ((word >> 9) + 0.5) / 2^23 = 2^e (1 + t), t in [sqrt(1/2) - 1, sqrt(2) - 1):
// e is 0 for u near 1, where t is exact. The polynomial is off by 1.7e-7 of its value at most.
INLINE F minus_two_log(U word) {
    const F odd = to_float(bits<I>((word >> 8) | all(1u)));  // u * 2^24, exact
    const I shifted = bits<I>(odd) - all(0x3F3504F3 + (24 << 23));
    const F e = to_float(shifted >> 23);
    const F t = bits<F>((shifted & all(0x7FFFFF)) + all(0x3F3504F3)) - all(1.0f);
    F p = t * all(0.20213787f) + all(-0.32445163f);
    p = p * t + all(0.34501660f);
    p = p * t + all(-0.39800331f);
    p = p * t + all(0.49939820f);
    p = p * t + all(-0.66670120f);
    p = p * t + all(1.00000727f);
    p = p * t + all(-1.99999988f);
    return e * all(-1.38629436f) + p * t;
}

// radius * (cos, sin) of 2 pi u. With 2 pi u = pi (k + 1/2 + y), k = 0 or 1 and y in (-1/2, 1/2), these are
// (-sin, cos) of pi y, negated where k is 1.
INLINE void turn(F radius, U word, F &cosine, F &sine) {
    // 1 + the fraction of 2 u, exact: k is the word's top bit, the lowest of the fraction is always set.
    const F one_and_fraction = bits<F>(((word >> 8) & all(0x7FFFFFu)) | all(0x3F800001u));
    const F y = one_and_fraction - all(1.5f);
    radius = bits<F>(bits<U>(radius) ^ (word & all(0x80000000u)));
    const F z = y * y;
    F c = z * all(0.21969681f) + all(-1.33188021f);
    c = c * z + all(4.05841208f);
    c = c * z + all(-4.93479300f);
    c = c * z + all(0.99999994f);
    F s = z * all(-0.07722225f) + all(0.59804642f);
    s = s * z + all(-2.55003166f);
    s = s * z + all(5.16770697f);
    s = s * z + all(-3.14159250f);
    cosine = radius * (s * y);
    sine = radius * c;
}

// Writes the 4 WIDTH normals of WIDTH blocks, times sigma, in the order that groups_of_first explains.
INLINE void normals(const Words &first, const Words &second, F sigma, float *to) {
    const F radius = square_root(minus_two_log(pack(first.word0, second.word0))) * sigma;
    const F other = square_root(minus_two_log(pack(first.word2, second.word2))) * sigma;
    F n[4];
    turn(radius, pack(first.word1, second.word1), n[0], n[1]);
    turn(other, pack(first.word3, second.word3), n[2], n[3]);
    Shuffle::transpose(n);
    for (int i = 0; i < 4; ++i) store(to + i * WIDTH, n[i]);
}

// Returns which of WIDTH consecutive groups the lanes of `first` must hold, so that `normals` writes the
// groups in order; the lanes of `second` hold the groups WIDTH / 2 further on. (The transposition moves
// quadruple j of each 128 bits to vector j.)
INLINE Q groups_of_first() {
    Q q;
    for (int i = 0; i < WIDTH / 2; ++i) q[i] = i % 2 * (WIDTH / 4) + i / 2;
    return q;
}

// Writes xi of one row for `count` class groups from `group` on: 4 count floats, rounded up to a
// multiple of 4 WIDTH. `ahead` is called with each multiple of 4 WIDTH, to prefetch.
template <class Ahead>
INLINE void draw_row(const RowBlocks &blocks, std::int64_t group, std::int64_t count, float sigma,
                     float *to, Ahead ahead) {
    Q first = groups_of_first() + all(static_cast<std::uint64_t>(group));
    const Q next = all(std::uint64_t{WIDTH}), half = all(std::uint64_t{WIDTH / 2});
    const F scale = all(sigma);
    for (std::int64_t i = 0; i < count; i += WIDTH, first = first + next) {
        ahead(4 * i);
        Words words, others;
        blocks.draw(first, first + half, words, others);
        normals(words, others, scale, to + 4 * i);
    }
}

// Writes xi of `count` blocks, each with its own group and row: 4 count floats, rounded up to a multiple
// of 4 WIDTH. Groups and rows are read up to the next multiple of WIDTH.
INLINE void draw_blocks(const MixedBlocks &blocks, const std::uint32_t *group,
                        const std::uint32_t *row, std::int64_t count, float sigma, float *to) {
    const F scale = all(sigma);
    for (std::int64_t i = 0; i < count; i += WIDTH) {
        Words words, others;
        // This order of the blocks makes the normals come out in order; see groups_of_first.
        const Q groups = bits<Q>(Shuffle::by_columns(load(group + i)));
        const Q rows = bits<Q>(Shuffle::by_columns(load(row + i)));
        blocks.draw(groups, groups >> 32, rows, rows >> 32, words, others);
        normals(words, others, scale, to + 4 * i);
    }
}

// Writes u = (word0 >> 8) / 2^24 of `count` rows, in group 0. Rows are read, and u is written, up to the
// next multiple of WIDTH.
INLINE void draw_uniforms(const MixedBlocks &blocks, const std::uint32_t *row, std::int64_t count,
                          float *u) {
    const Q none = all(std::uint64_t{0}), low_halves = all(std::uint64_t{0xFFFFFFFF});
    for (std::int64_t i = 0; i < count; i += WIDTH) {
        Words even, odd;
        const Q rows = bits<Q>(load(row + i));
        blocks.draw(none, none, rows, rows >> 32, even, odd);
        const U word0 = bits<U>((even.word0 & low_halves) | (odd.word0 << 32));
        store(u + i, to_float(bits<I>(word0 >> 8)) * all(0x1p-24f));
    }
}

}  // namespace
