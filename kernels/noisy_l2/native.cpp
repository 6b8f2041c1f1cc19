// The noisy-teacher L2 loss and its gradient (eager.py has the mathematics). This file draws the mask,
// draws the noise, and decides in which order rows are swept (sweep.hpp).
//
// Noise is drawn for selected rows only, in chunks that stay in the L1 cache. One thread computes a row,
// and adds its terms in one order: in float32 within the lanes of a chunk, in float64 over chunks.
// The result therefore does not depend on the number of threads.
//
// This file is compiled once for each instruction set, ISA being its name.
#include "native.hpp"

#include <algorithm>
#include <optional>

#include "../philox/philox.hpp"
#include "sweep.hpp"

namespace {

using namespace fastnt;

constexpr std::int64_t TILE = 64;     // rows whose mask is drawn together
constexpr std::int64_t FEW = 256;     // rows of fewer classes also draw their noise together
constexpr std::int64_t BLOCKS = 512;  // the most blocks, of four normals each, that they draw at a time

// At most TILE samples of one student, and their mask.
struct Tile {
    Tile(const NoisyL2 &p, std::int64_t begin, std::int64_t most)
        : p(p),
          student(begin / p.samples),
          first(begin % p.samples),
          count(std::min(most, p.samples - first)),
          noise(p.noise[student]),
          keys(noise.seed),
          loss(p.row_loss + begin) {
        std::uint32_t row[TILE] = {}, others[TILE];
        float u[TILE];
        for (std::int64_t i = 0; i < count; ++i) row[i] = row_of(i);
        draw_uniforms(MixedBlocks(keys, noise.step, stream(MASK)), row, count, u);
        for (std::int64_t i = 0; i < count; ++i) {  // without a branch, which is often mispredicted
            places[selected] = others[i - selected] = static_cast<std::uint32_t>(i);
            selected += u[i] < noise.alpha;
        }
        for (std::int64_t i = selected; i < count; ++i) places[i] = others[i - selected];
    }

    Row row(std::int64_t place, bool noisy) const { return {p, student, first + place, noisy}; }
    std::uint32_t row_of(std::int64_t place) const {
        const std::int64_t sample = first + place;
        return static_cast<std::uint32_t>(p.index ? p.index[sample * p.index_stride] : sample);
    }
    std::uint32_t stream(Stream of) const { return of_teacher(of, p.teacher_id); }

    const NoisyL2 &p;
    const std::int64_t student, first, count;
    const Noise &noise;
    const Keys keys;
    double *const loss;
    std::int64_t selected = 0;
    std::uint32_t places[TILE];  // the selected samples first, then the others
};

// Few classes: the noise of all selected rows of a tile is drawn at once, then its rows are swept.
class FewClasses {
   public:
    explicit FewClasses(std::int64_t classes) : groups((classes + 3) / 4) {
        for (std::int64_t i = 0, g = 0; i < BLOCKS; ++i, g = g + 1 < groups ? g + 1 : 0)
            group[i] = static_cast<std::uint32_t>(g);
    }

    std::int64_t tile() const { return std::min(TILE, BLOCKS / groups); }

    void sweep(const Tile &tile) {
        static constexpr float none[FEW] = {};
        const float *noise[TILE];
        for (std::int64_t i = 0; i < tile.count; ++i) noise[i] = none;
        for (std::int64_t i = 0; i < tile.selected; ++i) {
            noise[tile.places[i]] = xi + 4 * groups * i;
            const U row_of_all = all(tile.row_of(tile.places[i]));
            for (std::int64_t g = 0; g < groups; g += WIDTH) store(row + groups * i + g, row_of_all);
        }
        draw_blocks(MixedBlocks(tile.keys, tile.noise.step, tile.stream(NOISE)), group, row,
                    tile.selected * groups, tile.noise.sigma, xi);
        sweep_rows(tile.p, tile.student, tile.first, tile.count, noise, tile.loss);
    }

   private:
    const std::int64_t groups;
    std::uint32_t group[BLOCKS], row[BLOCKS + WIDTH] = {};
    float xi[4 * BLOCKS];
};

// Sweeps a row with noise and one without, chunk by chunk. While the noise of a chunk is drawn, which
// needs no memory, both rows are prefetched. Either row may be missing.
void sweep_pair(const Tile &tile, const RowBlocks &blocks, std::optional<Row> &noisy,
                std::optional<Row> &clean) {
    float xi[CHUNK];
    const std::int64_t classes = tile.p.classes;
    for (std::int64_t c = 0; c < classes; c += CHUNK) {
        const std::int64_t n = std::min(classes - c, CHUNK);
        if (noisy) {
            const Ahead ahead(noisy, c, n), beside(clean, c, n);
            draw_row(blocks, c / 4, (n + 3) / 4, tile.noise.sigma, xi,
                     [&](std::int64_t i) INLINE_LAMBDA {
                         ahead.fetch(i);
                         beside.fetch(i);
                     });
            noisy->sweep(c, n, xi);
        }
        if (clean) clean->sweep(c, n, nullptr);
    }
}

void sweep_many_classes(const Tile &tile) {
    const std::int64_t selected = tile.selected, others = tile.count - selected;
    for (std::int64_t i = 0; i < std::max(selected, others); ++i) {
        const std::uint32_t place = tile.places[i], beside = i < others ? tile.places[selected + i] : 0;
        std::optional<Row> noisy, clean;
        if (i < selected) noisy.emplace(tile.row(place, true));
        if (i < others) clean.emplace(tile.row(beside, false));
        sweep_pair(tile, {tile.keys, tile.row_of(place), tile.noise.step, tile.stream(NOISE)}, noisy,
                   clean);
        if (noisy) tile.loss[place] = noisy->loss();
        if (clean) tile.loss[beside] = clean->loss();
    }
}

void sweep_shared(const Tile &tile) {
    const float *xi = tile.p.shared_xi + tile.student * padded_classes(tile.p.classes);
    for (std::int64_t i = 0; i < tile.count; ++i) {
        const bool noisy = i < tile.selected;
        Row row = tile.row(tile.places[i], noisy);
        row.sweep(noisy ? xi : nullptr);
        tile.loss[tile.places[i]] = row.loss();
    }
}

void rows(const NoisyL2 &p, std::int64_t begin, std::int64_t end) {
    std::optional<FewClasses> few;
    if (!p.shared_xi && 0 < p.classes && p.classes < FEW) few.emplace(p.classes);
    while (begin < end) {
        const Tile tile(p, begin, std::min(few ? few->tile() : TILE, end - begin));
        if (few)
            few->sweep(tile);
        else if (p.shared_xi)
            sweep_shared(tile);
        else
            sweep_many_classes(tile);
        begin += tile.count;
    }
}

void draw_shared(const NoisyL2 &p, std::int64_t student) {
    const Noise &noise = p.noise[student];
    const Keys keys(noise.seed);
    const RowBlocks blocks(keys, 0, noise.step, of_teacher(SHARED_NOISE, p.teacher_id));
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
