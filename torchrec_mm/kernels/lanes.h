// Sixteen floats at once, for attention over rows.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

// Sixteen columns at once; the compiler splits them where registers are narrower.
constexpr int64_t LANES = 16;
using Lanes = float __attribute__((vector_size(64)));
using Half = float __attribute__((vector_size(32)));
using Quarter = float __attribute__((vector_size(16)));

inline Lanes load(const float* x) {
  Lanes lanes;
  std::memcpy(&lanes, x, sizeof lanes);
  return lanes;
}

// As many floats as one register holds, for loops that must keep their sums in registers: there
// the compiler would spill Lanes that it has to split. REGISTERS of them are LANES floats.
#if defined(__AVX512F__)
using Register = Lanes;
#else
using Register = Half;
#endif
constexpr int64_t IN_REGISTER = sizeof(Register) / sizeof(float);
constexpr int REGISTERS = LANES / IN_REGISTER;

inline Register load_register(const float* x) {
  Register values;
  std::memcpy(&values, x, sizeof values);
  return values;
}

inline void store(const Register& values, float* x) { std::memcpy(x, &values, sizeof values); }

template <typename Part, typename Whole>
Part folded(const Whole& whole) {
  Part parts[2];
  std::memcpy(parts, &whole, sizeof whole);
  return parts[0] + parts[1];
}

inline float total(const Half& eight) {
  const Quarter four = folded<Quarter>(eight);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

inline float total(const Lanes& lanes) { return total(folded<Half>(lanes)); }

// e^x for x <= 0, to 2 units in the last place: 2^n times a polynomial (Cephes, expf).
inline float exponential(float x) {
  constexpr float ROUND = 12582912;  // 1.5 * 2^23: adding it leaves an integer in the last bits
  x = std::max(x, -87.f);
  const float shifted = x * 1.44269504f + ROUND, n = shifted - ROUND;
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  for (float next : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 0.5f})
    y = y * r + next;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return (y * r * r + r + 1) * power;
}
