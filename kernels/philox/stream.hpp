// The numbers of the streams of noise, as in eager.py.
#pragma once

#include <cstdint>

namespace {

enum Stream : std::uint32_t { NOISE, MASK, SHARED_NOISE, AUGMENT, RANDOM_SIGMA, ORDER };

// Returns counter 3: each of several teachers has streams of its own.
constexpr std::uint32_t of_teacher(Stream stream, std::uint32_t teacher_id) {
    return stream + 256 * teacher_id;
}

}  // namespace
