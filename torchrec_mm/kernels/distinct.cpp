// Distinct ids in order of first occurrence: see distinct.py.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

// Open addressing over positions in `unique`; grows with the number of distinct ids, so that ids
// that repeat keep the table in cache.
template <typename Id>
int64_t distinct(const Id* ids, int64_t count, Id* unique, int32_t* inverse) {
  int bits = 10;
  std::vector<int32_t> slots(std::size_t{1} << bits, -1);
  auto home = [&bits](Id id) {
    return static_cast<uint64_t>(id) * 0x9E3779B97F4A7C15ull >> (64 - bits);
  };
  auto insert = [&](int32_t place) {
    std::size_t slot = home(unique[place]);
    while (slots[slot] >= 0) slot = (slot + 1) & (slots.size() - 1);
    slots[slot] = place;
  };
  constexpr int64_t kAhead = 16;
  int32_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) __builtin_prefetch(&slots[home(ids[i + kAhead])]);
    std::size_t slot = home(ids[i]);
    while (slots[slot] >= 0 && unique[slots[slot]] != ids[i]) slot = (slot + 1) & (slots.size() - 1);
    if (slots[slot] < 0) {
      slots[slot] = found;
      unique[found++] = ids[i];
      inverse[i] = found - 1;
      if (static_cast<std::size_t>(found) * 2 > slots.size()) {
        ++bits;
        slots.assign(std::size_t{1} << bits, -1);
        for (int32_t place = 0; place < found; ++place) insert(place);
      }
    } else {
      inverse[i] = slots[slot];
    }
  }
  return found;
}

}  // namespace

extern "C" int64_t distinct_int32(const int32_t* ids, int64_t count, int32_t* unique,
                                  int32_t* inverse) {
  return distinct(ids, count, unique, inverse);
}

extern "C" int64_t distinct_int64(const int64_t* ids, int64_t count, int64_t* unique,
                                  int32_t* inverse) {
  return distinct(ids, count, unique, inverse);
}
