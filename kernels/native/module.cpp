// The extension module fastnt._native. Python passes addresses, sizes and strides; it has checked them,
// and keeps the tensors alive during the call. Nothing here includes torch.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>

#include "../augment/native.hpp"
#include "../noisy_l2/native.hpp"
#include "../philox/stream.hpp"
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

// Returns the address of a tensor's first element; null for the number 0, which Python passes for None.
// A tensor that wraps others has no memory: it must not be taken for None.
template <class T>
const T *address(nb::handle tensor) {
    if (PyLong_Check(tensor.ptr())) return nullptr;
    const auto at = nb::cast<std::uintptr_t>(tensor.attr("data_ptr")());
    if (at == 0 && nb::cast<std::int64_t>(tensor.attr("numel")()) > 0)
        throw std::invalid_argument(
            "alpha, sigma, seed, step, index and grad_scale must be tensors with memory of their own; "
            "impl='eager' takes others");
    return reinterpret_cast<const T *>(at);
}

// One value for each student. Python passes a number, which holds for all students, or a tensor (S,) of T.
template <class T>
struct Values {
    explicit Values(nb::handle from) {
        if (PyFloat_Check(from.ptr())) {
            value = static_cast<T>(PyFloat_AsDouble(from.ptr()));
        } else if (PyLong_Check(from.ptr())) {
            value = std::is_integral_v<T> ? static_cast<T>(PyLong_AsUnsignedLongLongMask(from.ptr()))
                                          : static_cast<T>(PyLong_AsDouble(from.ptr()));
        } else {
            data = address<T>(from);
            stride = nb::cast<std::int64_t>(from.attr("stride")(0));
        }
    }
    T operator[](std::int64_t i) const { return data ? data[i * stride] : value; }

    const T *data = nullptr;
    std::int64_t stride = 0;
    T value{};
};

// As eager.draw_sigma, float32 throughout.
float draw_sigma(float low, float high, const Noise &noise, std::uint32_t teacher_id) {
    const std::uint32_t counters[4] = {0, 0, noise.step,
                                       of_teacher(RANDOM_SIGMA, teacher_id)};
    std::uint32_t words[4];
    noisy_l2_kernels().words(noise.seed, 1, counters, words);
    const float u = (static_cast<float>(words[0] >> 9) + 0.5f) * 0x1p-23f;
    return low + (high - low) * u;
}

enum Reduction : int { NONE, SUM, BATCHMEAN, MEAN };

// Inputs with fewer elements are computed by one thread: waking another would cost more than it saves.
constexpr std::int64_t PARALLEL = 1 << 16;
// For images the limit is higher. torch's threads keep spinning for a while after torch's last operation,
// and until then a second thread of ours waits for a core.
constexpr std::int64_t PARALLEL_PIXELS = 1 << 21;

// Sizes or strides of logits, (S, N, C), or (N, C) of one student.
struct Three {
    Three(nb::tuple from, std::int64_t first_of_two) {
        const std::size_t count = from.size();
        students = count == 3 ? nb::cast<std::int64_t>(from[0]) : first_of_two;
        samples = nb::cast<std::int64_t>(from[count - 2]);
        classes = nb::cast<std::int64_t>(from[count - 1]);
    }
    std::int64_t students, samples, classes;
};

// Logits, loss and gradient come as address, dtype, shape and strides in elements; the smaller tensors come
// as they are. S students, N samples, C classes. Logits (N, C) are of one student, and the results then
// have no dimension S either.
void noisy_l2(int threads,                                       // at most
              std::uintptr_t student,                            // (S, N, C)
              int student_dtype,                                 // as Dtype
              nb::tuple student_shape, nb::tuple student_strides,
              std::uintptr_t teacher,                            // (S, N, C), or (1, N, C) for all students
              int teacher_dtype,                                 // as Dtype
              nb::tuple teacher_shape, nb::tuple teacher_strides,
              nb::handle alpha, nb::handle sigma,                // numbers or (S,) float32
              bool random_sigma,                                 // in [sigma, sigma_high]
              nb::handle sigma_high,                             // number or (S,) float32
              nb::handle seed, nb::handle step,                  // numbers (modulo 2^64) or (S,) int64
              nb::handle index,                                  // (N,) int64, or 0: 0 .. N - 1
              nb::handle grad_scale,                             // () float32, or 0: 1
              std::uintptr_t loss,                               // (S, N) float32 for NONE, else (S,)
              std::uintptr_t grad,                               // (S, N, C) contiguous, or 0
              int grad_dtype,                                    // as Dtype
              bool shared,                                       // one xi for the batch
              bool perturb_student,                              // noise on the student
              int reduction,                                     // as Reduction
              std::uint32_t teacher_id) {                        // of several teachers
    const Three shape(student_shape, 1), strides(student_strides, 0);
    Three z_strides(teacher_strides, 0);
    const auto [students, samples, classes] = shape;
    if (Three(teacher_shape, 1).students != students) z_strides.students = 0;
    const Values<float> alphas(alpha), sigmas(sigma), highs(sigma_high);
    const Values<std::uint64_t> seeds(seed), steps(step);
    const std::int64_t *rows = address<std::int64_t>(index);
    const std::int64_t rows_stride = rows ? nb::cast<std::int64_t>(index.attr("stride")(0)) : 0;
    const float *scale = address<float>(grad_scale);
    nb::gil_scoped_release release;
    const NoisyL2Kernels &kernels = noisy_l2_kernels();
    std::vector<Noise> noise(students);
    for (std::int64_t s = 0; s < students; ++s) {
        noise[s] = {seeds[s], alphas[s], sigmas[s], static_cast<std::uint32_t>(steps[s])};
        if (random_sigma)
            noise[s].sigma = draw_sigma(noise[s].sigma, highs[s], noise[s], teacher_id);
    }
    auto at_least_1 = [](std::int64_t n) { return static_cast<double>(std::max<std::int64_t>(n, 1)); };
    double weight = 1;
    if (reduction == BATCHMEAN) weight = 1.0 / at_least_1(samples);
    if (reduction == MEAN) weight = 2.0 / at_least_1(samples * classes);
    float grad_weight = static_cast<float>(weight);
    if (scale) grad_weight *= *scale;

    const std::int64_t count = students * samples;
    const std::unique_ptr<double[]> row_loss(new double[count]);
    std::unique_ptr<float[]> shared_xi;
    if (shared) shared_xi.reset(new float[students * padded_classes(classes)]);
    const NoisyL2 problem{students,
                          samples,
                          classes,
                          {reinterpret_cast<const void *>(student),
                           static_cast<Dtype>(student_dtype), strides.students, strides.samples, strides.classes},
                          {reinterpret_cast<const void *>(teacher),
                           static_cast<Dtype>(teacher_dtype), z_strides.students, z_strides.samples,
                           z_strides.classes},
                          noise.data(),
                          rows,
                          rows_stride,
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
    // Several pieces for each thread balance the work; pieces must not be so small that sharing costs.
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
        double sums[4] = {};  // four sums in turn, since an addition waits for the one before it
        for (std::int64_t i = 0; i < samples; ++i) sums[i % 4] += row_loss[s * samples + i];
        out[s] = static_cast<float>((sums[0] + sums[1] + sums[2] + sums[3]) * weight);
    }
}

// Addresses are 0 for None; strides are in elements, those of images in bytes.
void augment(int threads,                                        // at most
             std::int64_t count,                                 // N
             std::int64_t height, std::int64_t width, std::int64_t channels,
             std::uintptr_t images,                              // (N, H, W, C) uint8
             std::int64_t stride_n, std::int64_t stride_h, std::int64_t stride_w, std::int64_t stride_c,
             std::uintptr_t index,                               // (N,) int64, or 0: 0 .. N - 1
             std::int64_t index_stride,
             std::uintptr_t flipped,                             // (N,) bool, or 0: none
             std::int64_t flipped_stride,
             std::uintptr_t mean,                                // (H, W, C) float32, or 0
             std::uintptr_t deviation,                           // (H, W, C) float32, or 0
             std::uint64_t seed,
             std::uint32_t epoch,
             std::int64_t pad,                                   // pixels
             bool mirror,                                        // by a coin for each image
             std::uintptr_t output,                              // (N, H, W, C) contiguous
             int dtype) {                                        // of the output, as Dtype
    nb::gil_scoped_release release;
    const AugmentKernels &kernels = augment_kernels();
    const Augment problem{count,
                          height,
                          width,
                          channels,
                          reinterpret_cast<const std::uint8_t *>(images),
                          {stride_n, stride_h, stride_w, stride_c},
                          reinterpret_cast<const std::int64_t *>(index),
                          index_stride,
                          reinterpret_cast<const bool *>(flipped),
                          flipped_stride,
                          reinterpret_cast<const float *>(mean),
                          reinterpret_cast<const float *>(deviation),
                          seed,
                          epoch,
                          pad,
                          mirror,
                          reinterpret_cast<void *>(output),
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

// The words (4, count) of the counters (4, count): an epoch's order needs them.
void words(std::uint64_t seed, std::int64_t count, std::uintptr_t counters, std::uintptr_t to) {
    noisy_l2_kernels().words(seed, count, reinterpret_cast<const std::uint32_t *>(counters),
                             reinterpret_cast<std::uint32_t *>(to));
}

// The normals (count, 4) of the words (4, count): for the tests.
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
