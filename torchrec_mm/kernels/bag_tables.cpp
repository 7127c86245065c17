// Bags of any size pooled out of tables, and row-wise Adagrad in the backward pass.
// See bag_tables.py.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "adagrad.h"

namespace {

constexpr int64_t kAhead = 12;  // values between asking for a row and using it

// Bags of several features, as many of each. ids: the row of each value, bag after bag.
// begins: where the values of each bag begin, and the last end. mean, table: of each feature.
struct Bags {
    const int64_t* ids;
    const int64_t* begins;
    const int32_t* mean;
    const int32_t* table;
    int64_t features, bags, width, tables;

    int64_t begin(int64_t feature) const { return begins[feature * bags]; }
    float scale(int64_t feature, int64_t length) const {
        return mean[feature] && length ? 1.0f / static_cast<float>(length) : 1.0f;
    }
};

// A thread's share of a table's rows: those whose ids' hashes are its own. Summed and learned from
// by one thread, in the order of features and bags: the same for any number of threads.
// Kept from step to step: the system would give and take the memory each time.
class Share {
public:
    static Share& own() {
        static thread_local Share share;
        return share;
    }

    // Sums what the bags of a table give its rows.
    void add_up(const Bags& in, int64_t table, const float* gradient, int64_t stride, uint32_t mine,
                uint32_t parts) {
        clear(in, table);
        for (int64_t f = 0; f < in.features; ++f) {
            if (in.table[f] != table) continue;
            for (int64_t bag = 0; bag < in.bags; ++bag) {
                const int64_t* ends = in.begins + f * in.bags + bag;
                const float* from = gradient + bag * stride + f * in.width;
                const float by = in.scale(f, ends[1] - ends[0]);
                for (int64_t at = ends[0]; at < ends[1]; ++at) {
                    const uint64_t hash = static_cast<uint64_t>(in.ids[at]) * kHash;
                    if (parts > 1 && (hash & 0xffffffff) * parts >> 32 != mine) continue;
                    float* to = sums_of(in.ids[at], hash, in.width);
#pragma omp simd
                    for (int64_t i = 0; i < in.width; ++i) to[i] += by * from[i];
                }
            }
        }
    }

    void learn(float* weights, float* momentum, int64_t width, float rate, float eps) const {
        for (std::size_t at = 0; at < rows.size(); ++at) {
            if (at + kAhead < rows.size()) {
                __builtin_prefetch(weights + rows[at + kAhead] * width, 1);
                __builtin_prefetch(momentum + rows[at + kAhead], 1);
            }
            adagrad(weights + rows[at] * width, momentum[rows[at]], sums.data() + at * width, width,
                    rate, eps);
        }
    }

private:
    static constexpr uint64_t kHash = 0x9E3779B97F4A7C15ull;

    int bits = 0;
    std::vector<int64_t> rows;  // distinct, in order of occurrence
    std::vector<int32_t> slots;
    std::vector<float> sums;

    void clear(const Bags& in, int64_t table) {
        int64_t count = 0;
        for (int64_t f = 0; f < in.features; ++f)
            if (in.table[f] == table) count += in.begin(f + 1) - in.begin(f);
        for (bits = 4; int64_t{1} << bits < 2 * count; ++bits) {
        }
        slots.assign(std::size_t{1} << bits, -1);
        rows.clear();
        sums.clear();
    }

    float* sums_of(int64_t row, uint64_t hash, int64_t width) {
        std::size_t slot = hash >> (64 - bits);
        while (slots[slot] >= 0 && rows[slots[slot]] != row) slot = (slot + 1) & (slots.size() - 1);
        if (slots[slot] < 0) {
            slots[slot] = static_cast<int32_t>(rows.size());
            rows.push_back(row);
            sums.resize(sums.size() + width);
        }
        return sums.data() + slots[slot] * width;
    }
};

}  // namespace

enum : int32_t { kFine, kNoRow };

// kNoRow, and nothing of use in `out`, if an id is no row of its table.
extern "C" int32_t pool(const float* const* weights, const int64_t* rows, Bags in, float* out,
                        int32_t threads) {
    const int64_t last = in.begins[in.features * in.bags];
    for (int64_t f = 0; f < in.features; ++f)
        for (int64_t at = in.begin(f); at < in.begin(f + 1); ++at)
            if (static_cast<uint64_t>(in.ids[at]) >= static_cast<uint64_t>(rows[in.table[f]]))
                return kNoRow;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t bag = 0; bag < in.bags; ++bag)
        for (int64_t f = 0; f < in.features; ++f) {
            const int64_t* ends = in.begins + f * in.bags + bag;
            const float* table = weights[in.table[f]];
            float* to = out + (bag * in.features + f) * in.width;
            std::fill(to, to + in.width, 0.0f);
            for (int64_t at = ends[0]; at < ends[1]; ++at) {
                // Of the feature's next bags too; what lies past them is read in vain, not used.
                if (at + kAhead < last)
                    __builtin_prefetch(table + in.ids[at + kAhead] * in.width);
                const float* from = table + in.ids[at] * in.width;
#pragma omp simd
                for (int64_t i = 0; i < in.width; ++i) to[i] += from[i];
            }
            const float by = in.scale(f, ends[1] - ends[0]);
#pragma omp simd
            for (int64_t i = 0; i < in.width; ++i) to[i] *= by;
        }
    return kFine;
}

extern "C" void update(float* const* weights, float* const* momentum, Bags in,
                       const float* gradient, int64_t stride, const float* learning_rates,
                       float eps, int32_t threads) {
#pragma omp parallel num_threads(threads)
    for (int64_t table = 0; table < in.tables; ++table) {
        Share& own = Share::own();
        own.add_up(in, table, gradient, stride, omp_get_thread_num(), omp_get_num_threads());
        own.learn(weights[table], momentum[table], in.width, learning_rates[table], eps);
    }
}
