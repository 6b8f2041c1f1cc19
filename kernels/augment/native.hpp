// The arguments of the native augmentation kernel. eager.py has the definition.
#pragma once

#include <cstdint>

#include "../philox/dtype.hpp"

namespace fastnt {

struct Augment {
    std::int64_t count, height, width, channels;
    const std::uint8_t *images;
    std::int64_t strides[4];    // of images (N, H, W, C), in bytes
    const std::int64_t *index;  // (count,): rows; null: the places in the batch
    std::int64_t index_stride;
    const bool *flipped;  // (count,): images that are mirrored besides; null: none
    std::int64_t flipped_stride;
    const float *mean, *deviation;  // (H, W, C) contiguous, or null
    std::uint64_t seed;
    std::uint32_t epoch;
    std::int64_t pad;
    bool mirror;
    void *to;  // (N, H, W, C) contiguous
    Dtype dtype;
};

struct AugmentKernels {
    // The images [begin, end).
    void (*images)(const Augment &problem, std::int64_t begin, std::int64_t end);
};

constexpr std::int64_t MAX_CHANNELS = 1024;

extern const AugmentKernels augment_baseline, augment_avx2, augment_avx512;

}  // namespace fastnt
