// Rows of several tables side by side, and the sums of their gradients. See gather_columns.py.

#include <cstdint>
#include <cstring>

extern "C" void gather(const float* const* source, const int64_t* stride, const int32_t* index,
                       int64_t tables, int64_t rows, int64_t width, float* out, int32_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t table = 0; table < tables; ++table)
            std::memcpy(out + (row * tables + table) * width,
                        source[table] + index[table * rows + row] * stride[table],
                        width * sizeof(float));
}

// Each thread owns every threads-th row of every table: no two write to one place, and each place
// sums in the order of the rows, whatever the number of threads.
extern "C" void scatter_add(float* const* source, const int64_t* stride, const int32_t* index,
                            int64_t tables, int64_t rows, int64_t width, const float* gradient,
                            int32_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int32_t thread = 0; thread < threads; ++thread)
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t table = 0; table < tables; ++table) {
                const int32_t place = index[table * rows + row];
                if (threads > 1 && place % threads != thread) continue;
                float* to = source[table] + place * stride[table];
                const float* from = gradient + (row * tables + table) * width;
#pragma omp simd
                for (int64_t i = 0; i < width; ++i) to[i] += from[i];
            }
}
