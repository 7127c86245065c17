// Bags of rows that were looked up once each: their sums or means, and the gradients of the rows.
// See pool_bags.py.

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

// Bags of several features, as many of each. index: the row of each value, bag after bag.
// begins: where the values of each bag begin, and the last end. mean, table: of each feature.
struct Bags {
    const int64_t* index;
    const int64_t* begins;
    const int32_t* mean;
    const int32_t* table;
    int64_t features, bags, width, tables;
};

float scale(const Bags& in, int64_t feature, int64_t length) {
    return in.mean[feature] && length ? 1.0f / static_cast<float>(length) : 1.0f;
}

}  // namespace

extern "C" void pool(const float* rows, Bags in, float* out, int32_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t bag = 0; bag < in.bags; ++bag)
        for (int64_t feature = 0; feature < in.features; ++feature) {
            const int64_t* ends = in.begins + feature * in.bags + bag;
            float* to = out + (bag * in.features + feature) * in.width;
            std::fill(to, to + in.width, 0.0f);
            for (int64_t at = ends[0]; at < ends[1]; ++at) {
                const float* from = rows + in.index[at] * in.width;
#pragma omp simd
                for (int64_t i = 0; i < in.width; ++i) to[i] += from[i];
            }
            const float by = scale(in, feature, ends[1] - ends[0]);
#pragma omp simd
            for (int64_t i = 0; i < in.width; ++i) to[i] *= by;
        }
}

// Each table's rows are one thread's, which sums in the order of features and bags: no two write
// to one place, and the sums are the same for any number of threads. ``rows`` begins as zeros.
extern "C" void spread(const float* gradient, Bags in, float* rows, int32_t threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t table = 0; table < in.tables; ++table)
        for (int64_t feature = 0; feature < in.features; ++feature) {
            if (in.table[feature] != table) continue;
            for (int64_t bag = 0; bag < in.bags; ++bag) {
                const int64_t* ends = in.begins + feature * in.bags + bag;
                const float* from = gradient + (bag * in.features + feature) * in.width;
                const float by = scale(in, feature, ends[1] - ends[0]);
                for (int64_t at = ends[0]; at < ends[1]; ++at) {
                    float* to = rows + in.index[at] * in.width;
#pragma omp simd
                    for (int64_t i = 0; i < in.width; ++i) to[i] += by * from[i];
                }
            }
        }
}
