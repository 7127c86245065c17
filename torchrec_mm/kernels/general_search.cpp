// The general search unit over jagged requests. general_search.py states the contract; both round
// the same operations in the same order, so on int8 vectors they agree to the last bit: compile
// with -ffp-contract=off.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "best.h"
#include "cosine.h"

namespace {

constexpr int64_t kAhead = 64;  // behaviours whose vectors are on their way from memory
constexpr int64_t kCosines = 1 << 20;  // at once: a request may have any number of candidates

struct Requests {
  int64_t count;
  const int32_t *candidate_rows, *behaviour_rows;         // -1: no vector
  const int64_t *candidate_offsets, *behaviour_offsets;  // (requests + 1)

  int64_t candidates(int64_t r) const { return candidate_offsets[r + 1] - candidate_offsets[r]; }
  int64_t behaviours(int64_t r) const { return behaviour_offsets[r + 1] - behaviour_offsets[r]; }
};

// Per impression; keep and num_tiers may be 0.
struct SearchHits {
  int32_t keep, num_tiers;
  int32_t *kept, *num_kept;
  float *cosine, *tiers;
  float* pairs;                         // null: not wanted
  std::vector<int64_t> pair_offsets{};  // where those of each request begin

  void clear(int64_t i) const {
    std::fill_n(kept + i * keep, keep, 0);
    std::fill_n(cosine + i * keep, keep, 0.0f);
    std::fill_n(tiers + i * num_tiers, num_tiers, 0.0f);
    num_kept[i] = 0;
  }
};

template <typename Element>
struct Searcher {
  const Catalogue<Element> catalogue;
  Candidates<Element> candidates;
  std::vector<int32_t> candidate_rows, rows, places;  // of those that have a vector
  std::vector<int64_t> impressions;
  std::vector<float> cosine;
  Chooser chooser;

  void search(const Requests& requests, int64_t r, const SearchHits& found) {
    gather(requests, r, found);
    if (rows.empty()) return;
    int64_t row_length = padded(rows.size(), kLanes), total = impressions.size();
    int64_t most = std::max(kGroup, kCosines / row_length);
    for (int64_t first = 0; first < total; first += most)
      search(requests, r, first, std::min(total - first, most), row_length, found);
  }

 private:
  void search(const Requests& requests, int64_t r, int64_t first, int64_t some, int64_t row_length,
              const SearchHits& found) {
    candidates.assign(catalogue, candidate_rows.data() + first, some);
    cosine.resize(padded(some, kGroup) * row_length);
    for (int64_t b = 0, count = rows.size(); b < count; b += kLanes) {
      prefetch(requests, requests.behaviour_offsets[r] + b + kAhead);
      cosines(catalogue, candidates, rows.data() + b, std::min(count - b, kLanes),
              cosine.data() + b, row_length);
    }
    for (int64_t c = 0; c < some; ++c) {
      const float* values = cosine.data() + c * row_length;
      report(values, impressions[first + c], found);
      if (found.pairs) report_pairs(values, requests, r, impressions[first + c], found);
    }
  }

  // Requests lie one after another: what is ahead may be the next one's.
  __attribute__((always_inline)) void prefetch(const Requests& requests, int64_t begin) {
    int64_t end = std::min(begin + kLanes, requests.behaviour_offsets[requests.count]);
    for (int64_t b = begin; b < end; ++b)
      if (requests.behaviour_rows[b] >= 0) catalogue.prefetch(requests.behaviour_rows[b]);
  }

  void gather(const Requests& requests, int64_t r, const SearchHits& found) {
    impressions.clear();
    candidate_rows.clear();
    if (found.pairs)
      std::fill(found.pairs + found.pair_offsets[r], found.pairs + found.pair_offsets[r + 1], 0.0f);
    for (int64_t i = requests.candidate_offsets[r]; i < requests.candidate_offsets[r + 1]; ++i) {
      found.clear(i);
      if (requests.candidate_rows[i] < 0) continue;
      impressions.push_back(i);
      candidate_rows.push_back(requests.candidate_rows[i]);
    }
    int64_t begin = requests.behaviour_offsets[r], end = requests.behaviour_offsets[r + 1];
    rows.resize(end - begin);
    places.resize(end - begin);
    int64_t count = 0;
    for (int64_t b = begin; b < end; ++b) {
      if (requests.behaviour_rows[b] < 0) continue;
      rows[count] = requests.behaviour_rows[b];
      places[count++] = b - begin;
    }
    rows.resize(count);
  }

  void report_pairs(const float* values, const Requests& requests, int64_t r, int64_t i,
                    const SearchHits& found) {
    int64_t place = i - requests.candidate_offsets[r];
    float* out = found.pairs + found.pair_offsets[r] + place * requests.behaviours(r);
    for (std::size_t k = 0; k < rows.size(); ++k) out[places[k]] = values[k];
  }

  void report(const float* values, int64_t i, const SearchHits& found) {
    if (!found.num_tiers) return;
    count_tiers(values, rows.size(), found.num_tiers, chooser);
    std::copy_n(chooser.counts.data(), found.num_tiers, found.tiers + i * found.num_tiers);
    if (!found.keep) return;
    int64_t best = choose(values, rows.size(), found.num_tiers, found.keep, chooser);
    for (int64_t k = 0; k < best; ++k) {
      auto at = static_cast<uint32_t>(chooser.keys[k]);
      found.kept[i * found.keep + k] = places[at];
      found.cosine[i * found.keep + k] = values[at];
    }
    found.num_kept[i] = best;
  }
};

template <typename Element>
void search_all(const Catalogue<Element>& catalogue, const Requests& requests, SearchHits found,
                int threads) {
  if (found.pairs) {
    found.pair_offsets.assign(requests.count + 1, 0);
    for (int64_t r = 0; r < requests.count; ++r)
      found.pair_offsets[r + 1] =
          found.pair_offsets[r] + requests.candidates(r) * requests.behaviours(r);
  }
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Searcher<Element> searcher{catalogue};
#pragma omp for schedule(dynamic, 4)
    for (int64_t r = 0; r < requests.count; ++r) searcher.search(requests, r, found);
  }
}

}  // namespace

#define GENERAL_SEARCH(Element)                                                                  \
  extern "C" void general_search_##Element(                                                      \
      const Element* vectors, int64_t width, const int32_t* candidate_rows,                      \
      const int32_t* behaviour_rows, const int64_t* candidate_offsets,                           \
      const int64_t* behaviour_offsets, int64_t requests, int32_t keep, int32_t num_tiers,       \
      int32_t* kept, int32_t* num_kept, float* cosine, float* tiers, float* pairs,               \
      int32_t threads) {                                                                         \
    search_all<Element>({vectors, width},                                                        \
                        {requests, candidate_rows, behaviour_rows, candidate_offsets,            \
                         behaviour_offsets},                                                     \
                        {keep, num_tiers, kept, num_kept, cosine, tiers, pairs}, threads);       \
  }

using int8 = int8_t;
using float32 = float;
GENERAL_SEARCH(int8)
GENERAL_SEARCH(float32)
