// Cosines of a request's candidates with its behaviours: every behaviour's vector is read once.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#include <immintrin.h>
#define HAS_VNNI 1
#endif

constexpr int64_t kLanes = 16;  // behaviours of a step
constexpr int64_t kGroup = 4;   // candidates that share what a step has loaded

inline int64_t padded(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

template <typename Element>
auto dot(const Element* a, const Element* b, int64_t width) {
  using Sum = std::conditional_t<std::is_integral_v<Element>, int32_t, float>;
  Sum sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < width; ++d) sum += static_cast<Sum>(a[d]) * static_cast<Sum>(b[d]);
  return sum;
}

// A zero vector has cosine 0 with everything.
inline float inverse_length(float squares) { return squares > 0 ? 1.0f / std::sqrt(squares) : 0.0f; }

// The item vectors: row-major, any number of rows.
template <typename Element>
struct Catalogue {
  const Element* vectors;
  int64_t width;

  const Element* row(int64_t index) const { return vectors + index * width; }
  // Inlined, or GCC takes a call that computes nothing for superfluous.
  __attribute__((always_inline)) void prefetch(int64_t index) const {
    auto* bytes = reinterpret_cast<const char*>(row(index));
    auto* end = bytes + width * sizeof(Element);
    constexpr int kSecondLevel = 2;  // the first is too small for what is ahead
    for (; bytes < end; bytes += 64) __builtin_prefetch(bytes, 0, kSecondLevel);
    if (reinterpret_cast<std::uintptr_t>(end) % 64)  // a row need not begin where a cache line does
      __builtin_prefetch(end - 1, 0, kSecondLevel);
  }
};

// A request's candidates, copied side by side.
template <typename Element>
struct Candidates {
  int64_t count = 0, stride = 0;
  std::vector<Element> vectors;  // (count padded to kGroup, width padded to 64), zeros beyond
  std::vector<float> inverse;    // 1 / length
  std::vector<int32_t> sum;      // of the elements; int8 only

  void assign(const Catalogue<Element>& catalogue, const int32_t* rows, int64_t some) {
    count = some;
    stride = padded(catalogue.width, 64);
    vectors.assign(padded(count, kGroup) * stride, 0);
    inverse.assign(padded(count, kGroup), 0);
    sum.assign(padded(count, kGroup), 0);
    for (int64_t c = 0; c < count; ++c) {
      const Element* from = catalogue.row(rows[c]);
      std::copy_n(from, catalogue.width, vectors.data() + c * stride);
      inverse[c] = inverse_length(dot(from, from, catalogue.width));
      if constexpr (std::is_integral_v<Element>)
        for (int64_t d = 0; d < catalogue.width; ++d) sum[c] += from[d];
    }
  }
};

// Writes cosine[c * row_length + b] of all candidates c and the behaviours b = 0..count-1 <= kLanes.
// Rows c and columns b beyond may be written too, up to whole groups and steps.
template <typename Element>
void cosines(const Catalogue<Element>& catalogue, const Candidates<Element>& candidates,
             const int32_t* rows, int64_t count, float* cosine, int64_t row_length) {
  for (int64_t b = 0; b < count; ++b) {
    const Element* behaviour = catalogue.row(rows[b]);
    float inverse = inverse_length(dot(behaviour, behaviour, catalogue.width));
    for (int64_t c = 0; c < candidates.count; ++c) {
      const Element* candidate = candidates.vectors.data() + c * candidates.stride;
      float product = dot(candidate, behaviour, catalogue.width);
      cosine[c * row_length + b] = product * candidates.inverse[c] * inverse + 0.0f;  // no -0
    }
  }
}

#if HAS_VNNI

// Row r, dword c -> row c, dword r.
inline void transpose(__m512i (&x)[16]) {
  __m512i y[16];
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]);
      x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
    }
  }
  for (int i = 0; i < 16; i += 8) {
    for (int j = i; j < i + 4; ++j) {
      y[j] = _mm512_shuffle_i32x4(x[j], x[j + 4], 0x88);
      y[j + 4] = _mm512_shuffle_i32x4(x[j], x[j + 4], 0xdd);
    }
  }
  for (int i = 0; i < 8; ++i) {
    x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
    x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
  }
}

// One lane a behaviour. vpdpbusd multiplies unsigned by signed bytes: behaviours are raised by 128,
// and 128 times the sum of the signed side is taken off again.
template <>
inline void cosines(const Catalogue<int8_t>& catalogue, const Candidates<int8_t>& candidates,
                    const int32_t* rows, int64_t count, float* cosine, int64_t row_length) {
  const __m512i raise = _mm512_set1_epi8(-128), ones = _mm512_set1_epi8(1);
  thread_local std::vector<__m512i> tile;  // (width / 4): 4 bytes of each behaviour
  tile.resize(candidates.stride / 4);
  __m512i squares = _mm512_setzero_si512(), sum = squares;
  for (int64_t d = 0; d < candidates.stride; d += 64) {
    int64_t left = catalogue.width - d;
    __mmask64 mask = left >= 64 ? ~0ull : (1ull << left) - 1;
    __m512i x[16];
    for (int64_t b = 0; b < kLanes; ++b)
      x[b] = _mm512_maskz_loadu_epi8(mask, catalogue.row(rows[std::min(b, count - 1)]) + d);
    transpose(x);
    for (int w = 0; w < 16; ++w) {
      __m512i raised = _mm512_xor_si512(x[w], raise);
      squares = _mm512_dpbusd_epi32(squares, raised, x[w]);
      sum = _mm512_dpbusd_epi32(sum, ones, x[w]);
      tile[d / 4 + w] = raised;
    }
  }
  squares = _mm512_sub_epi32(squares, _mm512_slli_epi32(sum, 7));
  __m512 length = _mm512_sqrt_ps(_mm512_cvtepi32_ps(squares));
  __m512 inverse = _mm512_maskz_div_ps(_mm512_test_epi32_mask(squares, squares),
                                       _mm512_set1_ps(1.0f), length);

  for (int64_t first = 0; first < candidates.count; first += kGroup) {
    const int8_t* group[kGroup];
    __m512i dots[kGroup];
    for (int c = 0; c < kGroup; ++c) {
      group[c] = candidates.vectors.data() + (first + c) * candidates.stride;
      dots[c] = _mm512_set1_epi32(-128 * candidates.sum[first + c]);
    }
    for (std::size_t w = 0; w < tile.size(); ++w) {
      for (int c = 0; c < kGroup; ++c) {
        int32_t four;
        std::memcpy(&four, group[c] + 4 * w, 4);
        dots[c] = _mm512_dpbusd_epi32(dots[c], tile[w], _mm512_set1_epi32(four));
      }
    }
    for (int c = 0; c < kGroup; ++c) {
      __m512 inverse_c = _mm512_set1_ps(candidates.inverse[first + c]);
      __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[c]), inverse_c);
      _mm512_storeu_ps(cosine + (first + c) * row_length, _mm512_mul_ps(scaled, inverse));
    }
  }
}

#endif
