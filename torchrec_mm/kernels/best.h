// One candidate's behaviours: counted per tier of cosine, the K most alike chosen.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

// Scratch of a thread.
struct Chooser {
  std::vector<int32_t> tier, counts, picked;
  std::vector<float> values;
  std::vector<uint64_t> keys, sorted;
};

// counts[t] = cosines of tier t; cosine 1.0 joins the last tier. torchrec_mm/nn/simtier.py.
inline void count_tiers(const float* cosine, int64_t count, int32_t num_tiers, Chooser& work) {
  constexpr int kCopies = 4;  // neighbours often share a tier: let them not wait for each other
  const float scale = static_cast<float>(num_tiers / 2.0);
  work.tier.resize(count);
  int32_t* tier = work.tier.data();
  for (int64_t i = 0; i < count; ++i) {
    int32_t raw = static_cast<int32_t>((cosine[i] + 1.0f) * scale);
    tier[i] = std::min(std::max(raw, 0), num_tiers - 1);
  }
  work.counts.assign(kCopies * num_tiers, 0);
  int32_t* counts = work.counts.data();
  int64_t i = 0;
  for (; i + kCopies <= count; i += kCopies)
    for (int copy = 0; copy < kCopies; ++copy) ++counts[copy * num_tiers + tier[i + copy]];
  for (; i < count; ++i) ++counts[tier[i]];
  for (int32_t t = 0; t < num_tiers; ++t)
    for (int copy = 1; copy < kCopies; ++copy) counts[t] += counts[copy * num_tiers + t];
}

// Places of the behaviours in tier `lowest` or above. `out` has room for 16 more.
inline int64_t at_least(const int32_t* tier, int64_t count, int32_t lowest, int32_t* out) {
  int64_t found = 0, i = 0;
#if defined(__AVX512F__)
  __m512i place = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (; i + 16 <= count; i += 16) {
    __mmask16 mask = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(tier + i), _mm512_set1_epi32(lowest));
    _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(mask, place));
    found += __builtin_popcount(mask);
    place = _mm512_add_epi32(place, _mm512_set1_epi32(16));
  }
#endif
  for (; i < count; ++i) {
    out[found] = i;
    found += tier[i] >= lowest;
  }
  return found;
}

// As a number: larger cosine first, then larger place (newer).
inline uint64_t sort_key(float cosine, int32_t place) {
  int32_t bits;
  std::memcpy(&bits, &cosine, 4);
  uint32_t ordered = static_cast<uint32_t>(bits ^ (bits >> 31 & 0x7fffffff)) ^ 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | static_cast<uint32_t>(place);
}

// A cosine that `keep` or a few more reach; never one that fewer reach.
inline float threshold(const float* values, int64_t count, int64_t keep) {
  constexpr int64_t kFew = 8;
  float low = values[0], high = values[0];
#pragma omp simd reduction(min : low) reduction(max : high)
  for (int64_t i = 0; i < count; ++i) {
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  int64_t reached = count;
  for (int round = 0; round < 20 && reached > keep + kFew; ++round) {
    float middle = low + (high - low) * 0.5f;
    int32_t above = 0;
#pragma omp simd reduction(+ : above)
    for (int64_t i = 0; i < count; ++i) above += values[i] >= middle;
    if (above >= keep) {
      low = middle;
      reached = above;
    } else {
      high = middle;
    }
  }
  return low;
}

// Sorts the first `best` of `count` distinct keys to the front, largest first. Counting how many
// are larger takes no branch: for some dozens it beats any sort.
inline void sort_best(std::vector<uint64_t>& keys, std::vector<uint64_t>& sorted, int64_t count,
                      int64_t best) {
  typedef uint64_t Eight __attribute__((vector_size(64)));
  if (count > 256) {
    std::partial_sort(keys.begin(), keys.begin() + best, keys.begin() + count, std::greater<>());
    return;
  }
  keys.resize(count + 8);
  sorted.resize(count + 8);
  for (int64_t begin = 0; begin < count; begin += 8) {
    Eight eight, larger = {};
    std::memcpy(&eight, keys.data() + begin, sizeof eight);
    for (int64_t i = 0; i < count; ++i) larger -= static_cast<Eight>(keys[i] > eight);
    for (int64_t i = 0; i < std::min<int64_t>(8, count - begin); ++i) sorted[larger[i]] = eight[i];
  }
  keys.swap(sorted);
}

// work.keys[0..return) = keys of the best `keep`, best first. Needs count_tiers before it.
inline int64_t choose(const float* cosine, int64_t count, int32_t num_tiers, int64_t keep,
                      Chooser& work) {
  int32_t lowest = num_tiers - 1;
  for (int64_t above = work.counts[lowest]; above < keep && lowest > 0;)
    above += work.counts[--lowest];
  work.picked.resize(count + 16);
  int64_t picked = at_least(work.tier.data(), count, lowest, work.picked.data());
  work.values.resize(picked);
  work.keys.resize(picked + 1);
  float* values = work.values.data();
  for (int64_t i = 0; i < picked; ++i) values[i] = cosine[work.picked[i]];
  float low = picked > keep ? threshold(values, picked, keep) : -2.0f;
  uint64_t* keys = work.keys.data();
  int64_t kept = 0;
  for (int64_t i = 0; i < picked; ++i) {
    keys[kept] = sort_key(values[i], work.picked[i]);
    kept += values[i] >= low;
  }
  int64_t best = std::min(kept, keep);
  sort_best(work.keys, work.sorted, kept, best);
  return best;
}
