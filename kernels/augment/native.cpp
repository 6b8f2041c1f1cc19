// Crop, mirror and normalise uint8 images (eager.py has the definition). For a few pixels of an output
// row at a time, the kernel gathers their bytes into a buffer in the L1 cache, and converts them there.
//
// This file is compiled once for each instruction set, ISA being its name.
#include "native.hpp"

#include "../philox/convert.hpp"
#include "../philox/philox.hpp"

namespace {

using namespace fastnt;

constexpr std::int64_t BUFFER = MAX_CHANNELS;  // elements: at least one pixel

struct View {  // the random choices for one image
    std::int64_t dy, dx;
    bool mirrored;
};

View draw(const Augment &p, const Keys &keys, std::int64_t image) {
    const std::int64_t row = p.index ? p.index[image * p.index_stride] : image;
    Words words{all(std::uint64_t{0}), all(static_cast<std::uint64_t>(row)),
                all(std::uint64_t{p.epoch}), all(std::uint64_t{AUGMENT})};
    for (int round = 0; round < 10; ++round) words.round(keys, round);
    const std::uint64_t places = static_cast<std::uint64_t>(2 * p.pad + 1);
    const bool coin = p.mirror && low(words.word2[0]) >> 31;
    const bool flip = p.flipped && p.flipped[image * p.flipped_stride];
    return {static_cast<std::int64_t>(low(words.word0[0]) * places >> 32) - p.pad,
            static_cast<std::int64_t>(low(words.word1[0]) * places >> 32) - p.pad, coin != flip};
}

// Copies pixels from `source`; the next pixel is `step` bytes further.
template <int channels>
void gather(const std::uint8_t *source, std::int64_t step, std::int64_t pixels, std::uint8_t *to) {
    for (std::int64_t x = 0; x < pixels; ++x)
        for (int c = 0; c < channels; ++c) to[x * channels + c] = source[x * step + c];
}

void gather(const Augment &p, const std::uint8_t *source, std::int64_t step, std::int64_t pixels,
            std::uint8_t *to) {
    if (pixels <= 0) return;
    if (p.strides[3] == 1 && step == p.channels) {
        std::memcpy(to, source, static_cast<std::size_t>(pixels * p.channels));
    } else if (p.strides[3] == 1 && p.channels == 3) {
        gather<3>(source, step, pixels, to);
    } else if (p.channels == 1) {
        gather<1>(source, step, pixels, to);
    } else {
        for (std::int64_t x = 0; x < pixels; ++x)
            for (std::int64_t c = 0; c < p.channels; ++c)
                to[x * p.channels + c] = source[x * step + c * p.strides[3]];
    }
}

// Writes the bytes of the output pixels [x, x + pixels) of row y; outside the image they are 0.
void crop(const Augment &p, const View &view, std::int64_t image, std::int64_t y, std::int64_t x,
          std::int64_t pixels, std::uint8_t *to) {
    const std::int64_t source_y = y + view.dy, bytes = pixels * p.channels;
    if (source_y < 0 || source_y >= p.height) {
        std::memset(to, 0, static_cast<std::size_t>(bytes));
        return;
    }
    // Source columns are first + direction * (0 .. pixels - 1); those in [begin, end) are inside.
    const std::int64_t direction = view.mirrored ? -1 : 1;
    const std::int64_t first = (view.mirrored ? p.width - 1 - x : x) + view.dx;
    std::int64_t begin = view.mirrored ? first - p.width + 1 : -first;
    std::int64_t end = view.mirrored ? first + 1 : p.width - first;
    begin = begin < 0 ? 0 : begin > pixels ? pixels : begin;
    end = end < begin ? begin : end > pixels ? pixels : end;
    std::memset(to, 0, static_cast<std::size_t>(begin * p.channels));
    if (begin < end)
        gather(p,
               p.images + image * p.strides[0] + source_y * p.strides[1] +
                   (first + direction * begin) * p.strides[2],
               direction * p.strides[2], end - begin, to + begin * p.channels);
    std::memset(to + end * p.channels, 0, static_cast<std::size_t>((pixels - end) * p.channels));
}

// As the eager version: p / 255, minus the mean, divided by std, each step rounded to float32.
void normalise(const std::uint8_t *bytes, std::int64_t n, const float *mean, const float *deviation,
               float *to) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(bytes[i]) / 255.0f;
    if (mean)
        for (std::int64_t i = 0; i < n; ++i) to[i] -= mean[i];
    if (deviation)
        for (std::int64_t i = 0; i < n; ++i) to[i] /= deviation[i];
}

void images(const Augment &p, std::int64_t begin, std::int64_t end) {
    const Keys keys(p.seed);
    const std::int64_t at_once = BUFFER / p.channels;
    std::uint8_t bytes[BUFFER];
    float buffer[BUFFER];
    for (std::int64_t image = begin; image < end; ++image) {
        const View view = draw(p, keys, image);
        for (std::int64_t y = 0; y < p.height; ++y)
            for (std::int64_t x = 0; x < p.width; x += at_once) {
                const std::int64_t pixels = p.width - x < at_once ? p.width - x : at_once;
                const std::int64_t place = (y * p.width + x) * p.channels;
                const std::int64_t n = pixels * p.channels;
                const std::int64_t out = image * p.height * p.width * p.channels + place;
                float *to = p.dtype == Dtype::float32 ? static_cast<float *>(p.to) + out : buffer;
                crop(p, view, image, y, x, pixels, bytes);
                normalise(bytes, n, p.mean ? p.mean + place : nullptr,
                          p.deviation ? p.deviation + place : nullptr, to);
                if (p.dtype == Dtype::float16)
                    to_float16(buffer, n, static_cast<std::uint16_t *>(p.to) + out);
                else if (p.dtype == Dtype::bfloat16)
                    to_bfloat16(buffer, n, static_cast<std::uint16_t *>(p.to) + out);
            }
    }
}

}  // namespace

#define JOIN(a, b) a##b
#define NAMED(a, b) JOIN(a, b)
const fastnt::AugmentKernels fastnt::NAMED(augment_, ISA) = {images};
