// The arguments of the native noisy-L2 kernel. eager.py has the mathematics.
#pragma once

#include <cstdint>

#include "../philox/dtype.hpp"

namespace fastnt {

// Logits (students, samples, classes), read in place; strides in elements.
struct Logits {
    const void *data;
    Dtype dtype;
    std::int64_t student_stride, sample_stride, class_stride;
};

struct Noise {  // of one student
    std::uint64_t seed;
    float alpha, sigma;
    std::uint32_t step;
};

struct NoisyL2 {
    std::int64_t students, samples, classes;
    Logits student, teacher;
    const Noise *noise;         // (students,)
    const std::int64_t *index;  // (samples,): rows; null: the places in the batch
    std::int64_t index_stride;
    float *shared_xi;  // (students, classes rounded up to padded_classes), or null
    void *grad;        // (students, samples, classes) contiguous; null: not computed
    Dtype grad_dtype;
    float grad_weight;
    std::uint32_t teacher_id;
    bool perturb_student;
    double *row_loss;  // (students * samples,): output, before the reduction
};

constexpr std::int64_t padded_classes(std::int64_t classes) { return (classes + 63) / 64 * 64; }

// The kernels, compiled for one instruction set.
struct NoisyL2Kernels {
    // Loss and gradient of the rows [begin, end), counted over students and samples.
    void (*rows)(const NoisyL2 &problem, std::int64_t begin, std::int64_t end);
    // Fills one student's shared_xi.
    void (*draw_shared)(const NoisyL2 &problem, std::int64_t student);
    // Philox's words of `count` counters (4, count) each, and their normals: for the tests.
    void (*words)(std::uint64_t seed, std::int64_t count, const std::uint32_t *counters,
                  std::uint32_t *to);
    void (*box_muller)(std::int64_t count, const std::uint32_t *words, float *to);
};

extern const NoisyL2Kernels noisy_l2_baseline, noisy_l2_avx2, noisy_l2_avx512;

}  // namespace fastnt
