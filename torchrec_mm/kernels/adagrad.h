// Row-wise Adagrad: one row of a table learns.

#pragma once

#include <cmath>
#include <cstdint>

inline void adagrad(float* row, float& momentum, const float* gradient, int64_t width, float rate,
                    float eps) {
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; ++i) squares += gradient[i] * gradient[i];
    const float total = momentum += squares / width;
    const float step = rate / (std::sqrt(total) + eps);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) row[i] -= step * gradient[i];
}
