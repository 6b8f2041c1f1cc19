// The extension module fastnt._native: pointers, sizes and strides come from Python, which keeps the
// tensors alive; nothing here knows torch. Arguments are checked there.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>

#include "../augment/native.hpp"
#include "../noisy_l2/native.hpp"
#include "isa.hpp"
#include "pool.hpp"

namespace nb = nanobind;
using namespace fastnt;

namespace {

Isa chosen = usable_isas().front();

#ifdef FASTNT_X86
#define PICK(kernels) \
    (chosen == Isa::avx512 ? kernels##_avx512 : chosen == Isa::avx2 ? kernels##_avx2 : kernels##_baseline)
#else
#define PICK(kernels) kernels##_baseline
#endif
const NoisyL2Kernels &noisy_l2_kernels() { return PICK(fastnt::noisy_l2); }
const AugmentKernels &augment_kernels() { return PICK(fastnt::augment); }

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (Isa isa : usable_isas()) names.push_back(name(isa));
    return names;
}

void set_isa(const std::string &wanted) {
    for (Isa isa : usable_isas())
        if (wanted == name(isa)) {
            chosen = isa;
            return;
        }
    throw std::invalid_argument("this machine or build has no instruction set called " + wanted);
}

// One value a student: where it lies and how far apart, or, the address being 0, the value itself.
template <class T>
struct Values {
    std::uintptr_t data;
    std::int64_t stride;
    T value;

    T operator[](std::int64_t i) const {
        return data ? reinterpret_cast<const T *>(data)[i * stride] : value;
    }
};

// As eager.draw_sigma, float32 throughout.
float draw_sigma(float low, float high, const Noise &noise, std::uint32_t teacher_id) {
    const std::uint32_t counters[4] = {0, 0, noise.step, 4 + 256 * teacher_id};
    std::uint32_t words[4];
    noisy_l2_kernels().words(noise.seed, 1, counters, words);
    const float u = (static_cast<float>(words[0] >> 9) + 0.5f) * 0x1p-23f;
    return low + (high - low) * u;
}

enum Reduction : int { NONE, SUM, BATCHMEAN, MEAN };

// Below this many elements waking a thread costs more than it saves.
constexpr std::int64_t PARALLEL = 1 << 16;
// Images pass so fast that torch's own threads, which still spin after its last operation, stand in
// the way for longer.
constexpr std::int64_t PARALLEL_PIXELS = 1 << 21;

// See native.py for the arguments: pointers (0: none), dtypes, shapes and strides in elements.
void noisy_l2(int threads, std::int64_t students, std::int64_t samples, std::int64_t classes,
              std::uintptr_t student, int student_dtype, std::int64_t student_0,
              std::int64_t student_1, std::int64_t student_2, std::uintptr_t teacher,
              int teacher_dtype, std::int64_t teacher_0, std::int64_t teacher_1,
              std::int64_t teacher_2, std::uintptr_t alpha_at, std::int64_t alpha_0, double alpha,
              std::uintptr_t sigma_at, std::int64_t sigma_0, double sigma, bool random_sigma,
              std::uintptr_t high_at, std::int64_t high_0, double high, std::uintptr_t seed_at,
              std::int64_t seed_0, std::uint64_t seed, std::uintptr_t step_at, std::int64_t step_0,
              std::uint64_t step, std::uintptr_t index, std::int64_t index_0,
              std::uintptr_t grad_scale, std::uintptr_t loss, std::uintptr_t grad, int grad_dtype,
              bool shared, bool perturb_student, int reduction, std::uint32_t teacher_id) {
    nb::gil_scoped_release release;
    const NoisyL2Kernels &kernels = noisy_l2_kernels();
    const Values<float> alphas{alpha_at, alpha_0, static_cast<float>(alpha)};
    const Values<float> sigmas{sigma_at, sigma_0, static_cast<float>(sigma)};
    const Values<float> highs{high_at, high_0, static_cast<float>(high)};
    const Values<std::uint64_t> seeds{seed_at, seed_0, seed}, steps{step_at, step_0, step};
    std::vector<Noise> noise(students);
    for (std::int64_t s = 0; s < students; ++s) {
        noise[s] = {seeds[s], alphas[s], sigmas[s], static_cast<std::uint32_t>(steps[s])};
        if (random_sigma)
            noise[s].sigma = draw_sigma(noise[s].sigma, highs[s], noise[s], teacher_id);
    }
    double weight = 1;
    if (reduction == BATCHMEAN)
        weight = 1.0 / static_cast<double>(std::max<std::int64_t>(samples, 1));
    else if (reduction == MEAN)
        weight = 2.0 / static_cast<double>(std::max<std::int64_t>(samples * classes, 1));
    float grad_weight = static_cast<float>(weight);
    if (grad_scale) grad_weight *= *reinterpret_cast<const float *>(grad_scale);

    const std::int64_t count = students * samples;
    const std::unique_ptr<double[]> row_loss(new double[count]);
    std::unique_ptr<float[]> shared_xi;
    if (shared) shared_xi.reset(new float[students * padded_classes(classes)]);
    const NoisyL2 problem{students,
                          samples,
                          classes,
                          {reinterpret_cast<const void *>(student),
                           static_cast<Dtype>(student_dtype), student_0, student_1, student_2},
                          {reinterpret_cast<const void *>(teacher),
                           static_cast<Dtype>(teacher_dtype), teacher_0, teacher_1, teacher_2},
                          noise.data(),
                          reinterpret_cast<const std::int64_t *>(index),
                          index_0,
                          shared_xi.get(),
                          reinterpret_cast<void *>(grad),
                          static_cast<Dtype>(grad_dtype),
                          grad_weight,
                          teacher_id,
                          perturb_student,
                          row_loss.get()};
    if (count * classes < PARALLEL) threads = 1;
    if (shared && samples)
        Pool::run(threads, students, 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t s = begin; s < end; ++s) kernels.draw_shared(problem, s);
        });
    // Several pieces a thread, for balance, but none so small that sharing it out costs.
    const std::int64_t piece = std::max(
        {count / (8 * std::int64_t{threads}), (1 << 14) / std::max<std::int64_t>(classes, 1),
         std::int64_t{1}});
    Pool::run(threads, count, piece, [&](std::int64_t begin, std::int64_t end) {
        kernels.rows(problem, begin, end);
    });

    float *out = reinterpret_cast<float *>(loss);
    if (reduction == NONE) {
        for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(row_loss[i]);
        return;
    }
    for (std::int64_t s = 0; s < students; ++s) {
        double sums[4] = {};  // side by side, as one addition waits for the one before
        for (std::int64_t i = 0; i < samples; ++i) sums[i % 4] += row_loss[s * samples + i];
        out[s] = static_cast<float>((sums[0] + sums[1] + sums[2] + sums[3]) * weight);
    }
}

// See kernels/augment/native.py for the arguments; strides of images in bytes, else in elements.
void augment(int threads, std::int64_t count, std::int64_t height, std::int64_t width,
             std::int64_t channels, std::uintptr_t images, std::int64_t stride_0,
             std::int64_t stride_1, std::int64_t stride_2, std::int64_t stride_3,
             std::uintptr_t index, std::int64_t index_0, std::uintptr_t flipped,
             std::int64_t flipped_0, std::uintptr_t mean, std::uintptr_t deviation,
             std::uint64_t seed, std::uint32_t epoch, std::int64_t pad, bool mirror,
             std::uintptr_t to, int dtype) {
    nb::gil_scoped_release release;
    const AugmentKernels &kernels = augment_kernels();
    const Augment problem{count,
                          height,
                          width,
                          channels,
                          reinterpret_cast<const std::uint8_t *>(images),
                          {stride_0, stride_1, stride_2, stride_3},
                          reinterpret_cast<const std::int64_t *>(index),
                          index_0,
                          reinterpret_cast<const bool *>(flipped),
                          flipped_0,
                          reinterpret_cast<const float *>(mean),
                          reinterpret_cast<const float *>(deviation),
                          seed,
                          epoch,
                          pad,
                          mirror,
                          reinterpret_cast<void *>(to),
                          static_cast<Dtype>(dtype)};
    const std::int64_t elements = height * width * channels;
    if (count * elements < PARALLEL_PIXELS) threads = 1;
    const std::int64_t piece = std::max({count / (8 * std::int64_t{threads}),
                                         (1 << 14) / std::max<std::int64_t>(elements, 1),
                                         std::int64_t{1}});
    Pool::run(threads, count, piece, [&](std::int64_t begin, std::int64_t end) {
        kernels.images(problem, begin, end);
    });
}

// For the tests: words (4, count) of counters (4, count), and normals (count, 4) of words.
void words(std::uint64_t seed, std::int64_t count, std::uintptr_t counters, std::uintptr_t to) {
    noisy_l2_kernels().words(seed, count, reinterpret_cast<const std::uint32_t *>(counters),
                             reinterpret_cast<std::uint32_t *>(to));
}

void box_muller(std::int64_t count, std::uintptr_t words, std::uintptr_t to) {
    noisy_l2_kernels().box_muller(count, reinterpret_cast<const std::uint32_t *>(words),
                                  reinterpret_cast<float *>(to));
}

}  // namespace

NB_MODULE(_native, m) {
    m.def("isas", &isas);
    m.def("isa", [] { return std::string(name(chosen)); });
    m.def("set_isa", &set_isa);
    m.def("noisy_l2", &noisy_l2);
    m.def("augment", &augment);
    m.def("philox_words", &words);
    m.def("box_muller", &box_muller);
}
