// Notes of items by their place, in order: see tally.py.

#include <cstdint>

extern "C" void count(int64_t* counts, const int32_t* places, int64_t n) {
  for (int64_t i = 0; i < n; ++i) ++counts[places[i]];
}

// Returns how many were given another value than the one kept.
extern "C" int64_t keep_first(int64_t* values, uint8_t* known, const int32_t* places,
                              const int64_t* given, int64_t n) {
  int64_t others = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t place = places[i];
    if (!known[place]) {
      known[place] = 1;
      values[place] = given[i];
    }
    others += values[place] != given[i];
  }
  return others;
}
