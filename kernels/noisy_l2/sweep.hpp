// One pass over a row of logits, whose noise xi is drawn already:
//     f = 1 + xi,  r = g - f z  (noise on the student: r = f g - z),
//     loss = 0.5 sum r^2,  grad = weight r  (weight f r).
//
// Part of native.cpp, compiled once for each instruction set.
#pragma once

#include "native.hpp"

#include <algorithm>
#include <optional>

#include "../philox/convert.hpp"
#include "../philox/lanes.hpp"

namespace {

using namespace fastnt;

constexpr std::int64_t CHUNK = 1024;  // classes, a multiple of 4 WIDTH

// Returns `n` logits of a row as float32: where they lie, or converted in the buffer.
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

// REST + k is a mask of WIDTH lanes: all bits are set in the last k, none in the others.
constexpr struct Rest {
    std::uint32_t bits[2 * WIDTH] = {};
    constexpr Rest() {
        for (int i = WIDTH; i < 2 * WIDTH; ++i) bits[i] = 0xFFFFFFFF;
    }
    constexpr const std::uint32_t *operator+(std::int64_t k) const { return bits + k; }
} REST;

enum Target { CLEAN, TEACHER, STUDENT };  // what the noise multiplies

// Returns the sum of r^2 over `n` classes of a row; with `write` the gradient goes to `grad`.
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
    if (i < n && n >= WIDTH) {  // the last WIDTH classes again; the mask keeps those not yet summed
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
    if (n < WIDTH) return static_cast<double>(tail);
    const F sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    return static_cast<double>(Shuffle::sum(sum)) + static_cast<double>(tail);
}

using Sweep = double (*)(const float *, const float *, const float *, std::int64_t, float, float *);
constexpr Sweep SWEEPS[3][2] = {{sweep<CLEAN, false>, sweep<CLEAN, true>},
                                {sweep<TEACHER, false>, sweep<TEACHER, true>},
                                {sweep<STUDENT, false>, sweep<STUDENT, true>}};

// The logits and the gradient of a row, and the sum of its squares so far.
class Row {
   public:
    Row(const NoisyL2 &p, std::int64_t student, std::int64_t sample, bool noisy)
        : p(p),
          run(SWEEPS[!noisy ? CLEAN : p.perturb_student ? STUDENT : TEACHER][p.grad != nullptr]),
          g(student * p.student.student_stride + sample * p.student.sample_stride),
          z(student * p.teacher.student_stride + sample * p.teacher.sample_stride),
          grad((student * p.samples + sample) * p.classes) {}

    // Sweeps the classes [c, c + n), at most CHUNK, whose noise is `xi`.
    INLINE void sweep(std::int64_t c, std::int64_t n, const float *xi) {
        float g_buffer[CHUNK], z_buffer[CHUNK], grad_buffer[CHUNK];
        const bool direct = p.grad && p.grad_dtype == Dtype::float32;
        sum += run(read(p.student, g + c * p.student.class_stride, n, g_buffer),
                   read(p.teacher, z + c * p.teacher.class_stride, n, z_buffer), xi, n, p.grad_weight,
                   direct ? static_cast<float *>(p.grad) + grad + c : grad_buffer);
        if (p.grad && !direct) {
            std::uint16_t *to = static_cast<std::uint16_t *>(p.grad) + grad + c;
            if (p.grad_dtype == Dtype::float16)
                to_float16(grad_buffer, n, to);
            else
                to_bfloat16(grad_buffer, n, to);
        }
    }

    // Sweeps all classes; `xi` is null for a row without noise.
    void sweep(const float *xi) {
        for (std::int64_t c = 0; c < p.classes; c += CHUNK)
            sweep(c, std::min(p.classes - c, CHUNK), xi ? xi + c : nullptr);
    }

    double loss() const { return 0.5 * sum; }

   private:
    friend class Ahead;
    const NoisyL2 &p;
    const Sweep run;
    const std::int64_t g, z, grad;
    double sum = 0;
};

template <Target target, bool write>
void sweep_float32(const NoisyL2 &p, const float *g, const float *z, float *grad, std::int64_t count,
                   const float *const *xi, double *loss) {
    for (std::int64_t i = 0; i < count; ++i)
        loss[i] = 0.5 * sweep<target, write>(
                            g + i * p.student.sample_stride, z + i * p.teacher.sample_stride, xi[i],
                            p.classes, p.grad_weight, write ? grad + i * p.classes : nullptr);
}

// Sweeps `count` rows from `sample` on, whose noise is `xi`, and writes their losses. The xi of a row
// without noise is 0, which gives the same numbers; a branch would often be predicted wrongly.
void sweep_rows(const NoisyL2 &p, std::int64_t student, std::int64_t sample, std::int64_t count,
                const float *const *xi, double *loss) {
    auto in_place = [](const Logits &x) { return x.dtype == Dtype::float32 && x.class_stride == 1; };
    if (in_place(p.student) && in_place(p.teacher) && (!p.grad || p.grad_dtype == Dtype::float32)) {
        auto first = [&](const Logits &x) {
            return static_cast<const float *>(x.data) + student * x.student_stride +
                   sample * x.sample_stride;
        };
        constexpr decltype(&sweep_float32<TEACHER, true>) runs[2][2] = {
            {sweep_float32<TEACHER, false>, sweep_float32<TEACHER, true>},
            {sweep_float32<STUDENT, false>, sweep_float32<STUDENT, true>}};
        float *grad = static_cast<float *>(p.grad);
        if (grad) grad += (student * p.samples + sample) * p.classes;
        return runs[p.perturb_student][p.grad != nullptr](p, first(p.student), first(p.teacher), grad,
                                                          count, xi, loss);
    }
    for (std::int64_t i = 0; i < count; ++i) {
        Row row(p, student, sample + i, true);
        row.sweep(xi[i]);
        loss[i] = row.loss();
    }
}

// Prefetches the next classes of a row, 4 WIDTH at a time.
class Ahead {
   public:
    Ahead(const std::optional<Row> &row, std::int64_t c, std::int64_t n) {
        if (!row || n < 16 * WIDTH) return;
        const NoisyL2 &p = row->p;
        g = stream(p.student.data, p.student.dtype, p.student.class_stride, row->g + c);
        z = stream(p.teacher.data, p.teacher.dtype, p.teacher.class_stride, row->z + c);
        if (p.grad) grad = stream(p.grad, p.grad_dtype, 1, row->grad + c);
    }
    INLINE void fetch(std::int64_t i) const {
        fetch<false>(g, i);
        fetch<false>(z, i);
        fetch<true>(grad, i);
    }

   private:
    struct Stream {
        const char *from = nullptr;
        std::int64_t size = 0;  // bytes of an element; 0: nothing is prefetched
    };
    static Stream stream(const void *data, Dtype dtype, std::int64_t stride, std::int64_t offset) {
        const std::int64_t size = dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2;
        return {static_cast<const char *>(data) + offset * size, stride == 1 ? size : 0};
    }
    template <bool to_write>
    INLINE void fetch(const Stream &s, std::int64_t i) const {
        for (std::int64_t line = 0; line < 4 * WIDTH * s.size; line += 64)
            prefetch<to_write>(s.from + i * s.size + line);
    }

    Stream g, z, grad;
};

}  // namespace
