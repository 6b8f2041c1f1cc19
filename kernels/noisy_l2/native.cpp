// The noisy-teacher L2 loss and its gradient, one row at a time (see eager.py for the mathematics).
//
// A row that the mask selects draws its noise, in chunks that stay in the L1 cache, then
//     f = 1 + xi,  r = g - f z  (noise on the student: r = f g - z),
//     loss = 0.5 sum r^2,  grad = weight r  (weight f r),
// in one pass over g and z. A row belongs to one thread and its sum has one order: float32 in the
// lanes of a chunk, float64 over chunks. So no number depends on how the rows are shared out.
//
// This file is compiled once for each instruction set, ISA being its name.
#include "native.hpp"

#include <algorithm>

#include "../philox/convert.hpp"
#include "../philox/philox.hpp"

namespace {

using namespace fastnt;

constexpr std::int64_t CHUNK = 1024;  // classes, a multiple of 4 WIDTH
constexpr std::int64_t TILE = 64;     // rows whose mask is drawn together
constexpr std::int64_t MIXED = 64;    // class groups below which rows draw their noise together
constexpr std::int64_t BLOCKS = 1024;  // that such rows draw at a time

// `n` logits of a row as float32: in place where they are, else in the buffer.
inline const float *read(const Logits &x, std::int64_t offset, std::int64_t n, float *buffer) {
    const std::int64_t stride = x.class_stride;
    if (x.dtype == Dtype::float32) {
        const float *from = static_cast<const float *>(x.data) + offset;
        if (stride == 1) return from;
        for (std::int64_t i = 0; i < n; ++i) buffer[i] = from[i * stride];
    } else if (x.dtype == Dtype::float64) {
        const double *from = static_cast<const double *>(x.data) + offset;
        for (std::int64_t i = 0; i < n; ++i) buffer[i] = static_cast<float>(from[i * stride]);
    } else {
        const std::uint16_t *from = static_cast<const std::uint16_t *>(x.data) + offset;
        std::uint16_t gathered[CHUNK];
        if (stride != 1) {
            for (std::int64_t i = 0; i < n; ++i) gathered[i] = from[i * stride];
            from = gathered;
        }
        if (x.dtype == Dtype::float16)
            from_float16(from, n, buffer);
        else
            from_bfloat16(from, n, buffer);
    }
    return buffer;
}

// Brings neighbouring elements into the cache, 4 WIDTH at a time: memory works too while noise is drawn.
class Ahead {
   public:
    Ahead(const void *data, Dtype dtype, std::int64_t stride, std::int64_t offset, std::int64_t n) {
        const std::int64_t bytes = dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
        from = static_cast<const char *>(data) + offset * bytes;
        size = data && stride == 1 && n >= 16 * WIDTH ? bytes : 0;
    }
    template <bool to_write>
    INLINE void fetch(std::int64_t i) const {
        for (std::int64_t line = 0; line < 4 * WIDTH * size; line += 64)
            prefetch<to_write>(from + i * size + line);
    }

   private:
    const char *from;
    std::int64_t size;
};

// From REST + k: no bit set, in the last k of WIDTH all.
constexpr struct Rest {
    std::uint32_t bits[2 * WIDTH] = {};
    constexpr Rest() {
        for (int i = WIDTH; i < 2 * WIDTH; ++i) bits[i] = 0xFFFFFFFF;
    }
    constexpr const std::uint32_t *operator+(std::int64_t k) const { return bits + k; }
} REST;

enum Target { CLEAN, TEACHER, STUDENT };  // what the noise multiplies

// The sum of r^2 of one row's `n` classes; the gradient, where wanted, into `grad`.
template <Target target, bool write>
double sweep(const float *g, const float *z, const float *xi, std::int64_t n, float weight,
             float *grad) {
    const F one = all(1.0f), weights = all(weight);
    F sums[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
    std::int64_t i = 0;
    auto step = [&](F &sum) INLINE_LAMBDA {
        const F f = target == CLEAN ? one : one + load(xi + i);
        const F r = target == STUDENT ? f * load(g + i) - load(z + i)
                    : target == TEACHER ? load(g + i) - f * load(z + i)
                                        : load(g + i) - load(z + i);
        sum = sum + r * r;
        if (write) store(grad + i, target == STUDENT ? r * f * weights : r * weights);
        i += WIDTH;
    };
    while (i + 4 * WIDTH <= n) {
        step(sums[0]);
        step(sums[1]);
        step(sums[2]);
        step(sums[3]);
    }
    while (i + WIDTH <= n) step(sums[0]);
    if (i < n && n >= WIDTH) {  // the last WIDTH once more, of which only the rest counts
        F rest = all(0.0f);
        const U counts = load(REST + (n - i));
        i = n - WIDTH;
        step(rest);
        sums[1] = sums[1] + bits<F>(bits<U>(rest) & counts);
    }
    float tail = 0;
    for (; i < n; ++i) {
        const float f = target == CLEAN ? 1.0f : 1.0f + xi[i];
        const float r = target == STUDENT ? f * g[i] - z[i] : g[i] - f * z[i];
        tail += r * r;
        if (write) grad[i] = target == STUDENT ? r * f * weight : r * weight;
    }
    const F sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    return static_cast<double>(Shuffle::sum(sum)) + static_cast<double>(tail);
}

using Sweep = double (*)(const float *, const float *, const float *, std::int64_t, float, float *);
constexpr Sweep SWEEPS[3][2] = {{sweep<CLEAN, false>, sweep<CLEAN, true>},
                                {sweep<TEACHER, false>, sweep<TEACHER, true>},
                                {sweep<STUDENT, false>, sweep<STUDENT, true>}};

inline std::int64_t row_of(const NoisyL2 &p, std::int64_t sample) {
    return p.index ? p.index[sample * p.index_stride] : sample;
}

// The mask of up to TILE samples from `sample` on.
void select(const NoisyL2 &p, const Noise &noise, const Keys &keys, std::int64_t sample,
            std::int64_t count, bool *selected) {
    const Q zero = all(std::uint64_t{0}), step = all(std::uint64_t{noise.step});
    const Q stream = all(std::uint64_t{MASK + 256 * p.teacher_id});
    constexpr int HALF = WIDTH / 2;
    for (std::int64_t i = 0; i < count; i += HALF) {
        Words words{zero, zero, step, stream};
        for (int lane = 0; lane < HALF && i + lane < count; ++lane)
            words.word1[lane] = static_cast<std::uint32_t>(row_of(p, sample + i + lane));
        for (int round = 0; round < 10; ++round) words.round(keys, round);
        for (int lane = 0; lane < HALF && i + lane < count; ++lane) {
            const std::uint32_t word = low(words.word0[lane]);
            selected[i + lane] = static_cast<float>(word >> 8) * 0x1p-24f < noise.alpha;
        }
    }
}

// The loss of one row. `drawn` holds its noise, if that was drawn before.
double one_row(const NoisyL2 &p, const Noise &of, const Keys &keys, std::int64_t student,
               std::int64_t sample, bool selected, const float *drawn) {
    float noise[CHUNK], g_buffer[CHUNK], z_buffer[CHUNK], out_buffer[CHUNK];
    const Logits &g = p.student, &z = p.teacher;
    const std::int64_t g_row = student * g.student_stride + sample * g.sample_stride;
    const std::int64_t z_row = student * z.student_stride + sample * z.sample_stride;
    const std::int64_t grad_row = (student * p.samples + sample) * p.classes;
    const Target target = !selected ? CLEAN : p.perturb_student ? STUDENT : TEACHER;
    const Sweep run = SWEEPS[target][p.grad != nullptr];
    const bool direct = p.grad && p.grad_dtype == Dtype::float32;
    double sum = 0;
    for (std::int64_t c = 0; c < p.classes; c += CHUNK) {
        const std::int64_t n = p.classes - c < CHUNK ? p.classes - c : CHUNK;
        const float *xi = drawn ? drawn + c : noise;
        float *grad = direct ? static_cast<float *>(p.grad) + grad_row + c : out_buffer;
        if (selected && !drawn) {
            const RowBlocks blocks(keys, static_cast<std::uint32_t>(row_of(p, sample)), of.step,
                                   NOISE + 256 * p.teacher_id);
            const Ahead g_ahead(g.data, g.dtype, g.class_stride, g_row + c, n);
            const Ahead z_ahead(z.data, z.dtype, z.class_stride, z_row + c, n);
            const Ahead grad_ahead(p.grad, p.grad_dtype, 1, grad_row + c, n);
            draw_row(blocks, c / 4, (n + 3) / 4, of.sigma, noise, [&](std::int64_t i) INLINE_LAMBDA {
                g_ahead.fetch<false>(i);
                z_ahead.fetch<false>(i);
                grad_ahead.fetch<true>(i);
            });
        }
        sum += run(read(g, g_row + c * g.class_stride, n, g_buffer),
                   read(z, z_row + c * z.class_stride, n, z_buffer), xi, n, p.grad_weight, grad);
        if (p.grad && !direct) {
            std::uint16_t *to = static_cast<std::uint16_t *>(p.grad) + grad_row + c;
            if (p.grad_dtype == Dtype::float16)
                to_float16(out_buffer, n, to);
            else
                to_bfloat16(out_buffer, n, to);
        }
    }
    return 0.5 * sum;
}

// The noise of several rows of few classes, one behind the other, each at a multiple of 4.
class MixedRows {
   public:
    explicit MixedRows(std::int64_t groups) : groups(groups) {
        for (std::int64_t i = 0, g = 0; i < BLOCKS; ++i, g = g + 1 < groups ? g + 1 : 0)
            group[i] = static_cast<std::uint32_t>(g);
    }
    void draw(const NoisyL2 &p, const Noise &of, const Keys &keys, std::int64_t sample,
              std::int64_t count, const bool *selected) {
        std::int64_t blocks = 0;
        for (std::int64_t i = 0; i < count; ++i)
            if (selected[i])
                for (const std::int64_t end = blocks + groups; blocks < end; ++blocks)
                    row[blocks] = static_cast<std::uint32_t>(row_of(p, sample + i));
        const MixedBlocks mixed(keys, of.step, NOISE + 256 * p.teacher_id);
        draw_blocks(mixed, group, row, blocks, of.sigma, xi);
    }

    const std::int64_t groups;
    float xi[4 * BLOCKS];

   private:
    std::uint32_t group[BLOCKS], row[BLOCKS];
};

void rows(const NoisyL2 &p, std::int64_t begin, std::int64_t end) {
    bool selected[TILE];
    const std::int64_t groups = (p.classes + 3) / 4;
    const bool mix = !p.shared_xi && 0 < groups && groups < MIXED;
    MixedRows mixed(mix ? groups : 1);
    const std::int64_t tile = mix ? std::min(TILE, BLOCKS / groups) : TILE;
    while (begin < end) {
        const std::int64_t student = begin / p.samples, first = begin % p.samples;
        const std::int64_t count = std::min({tile, end - begin, p.samples - first});
        const Noise &noise = p.noise[student];
        const Keys keys(noise.seed);
        select(p, noise, keys, first, count, selected);
        if (mix) mixed.draw(p, noise, keys, first, count, selected);
        const float *shared =
            p.shared_xi ? p.shared_xi + student * padded_classes(p.classes) : nullptr;
        const float *drawn = mix ? mixed.xi : shared;
        for (std::int64_t i = 0; i < count; ++i) {
            p.row_loss[begin + i] = one_row(p, noise, keys, student, first + i, selected[i], drawn);
            if (mix && selected[i]) drawn += 4 * groups;
        }
        begin += count;
    }
}

void draw_shared(const NoisyL2 &p, std::int64_t student) {
    const Noise &noise = p.noise[student];
    const Keys keys(noise.seed);
    const RowBlocks blocks(keys, 0, noise.step, SHARED_NOISE + 256 * p.teacher_id);
    draw_row(blocks, 0, (p.classes + 3) / 4, noise.sigma,
             p.shared_xi + student * padded_classes(p.classes), [](std::int64_t) {});
}

void words(std::uint64_t seed, std::int64_t count, const std::uint32_t *counters,
           std::uint32_t *to) {
    const Keys keys(seed);
    for (std::int64_t i = 0; i < count; ++i) {
        Words block{all(std::uint64_t{counters[i]}), all(std::uint64_t{counters[count + i]}),
                    all(std::uint64_t{counters[2 * count + i]}),
                    all(std::uint64_t{counters[3 * count + i]})};
        for (int round = 0; round < 10; ++round) block.round(keys, round);
        to[i] = low(block.word0[0]);
        to[count + i] = low(block.word1[0]);
        to[2 * count + i] = low(block.word2[0]);
        to[3 * count + i] = low(block.word3[0]);
    }
}

void box_muller(std::int64_t count, const std::uint32_t *words, float *to) {
    Q from[2][4] = {};
    float block[4 * WIDTH];
    const Q place = groups_of_first();
    for (std::int64_t i = 0; i < count; i += WIDTH) {
        for (int half = 0; half < 2; ++half)
            for (int word = 0; word < 4; ++word)
                for (int lane = 0; lane < WIDTH / 2; ++lane) {
                    const std::int64_t at = i + half * (WIDTH / 2) + static_cast<int>(place[lane]);
                    from[half][word][lane] = at < count ? words[word * count + at] : 0;
                }
        normals({from[0][0], from[0][1], from[0][2], from[0][3]},
                {from[1][0], from[1][1], from[1][2], from[1][3]}, all(1.0f), block);
        const std::int64_t n = count - i < WIDTH ? count - i : WIDTH;
        std::memcpy(to + 4 * i, block, sizeof(float) * 4 * n);
    }
}

}  // namespace

#define JOIN(a, b) a##b
#define NAMED(a, b) JOIN(a, b)
const fastnt::NoisyL2Kernels fastnt::NAMED(noisy_l2_, ISA) = {rows, draw_shared, words, box_muller};
