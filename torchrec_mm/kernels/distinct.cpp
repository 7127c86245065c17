// Distinct ids in order of first occurrence: see distinct.py.

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace {

constexpr int64_t kAhead = 16;  // ids whose slots are on their way from memory

// Of 32-bit ids the hash is a bijection, of others a filter.
uint32_t hash(int32_t id) { return static_cast<uint32_t>(id) * 0x9E3779B1u; }
uint32_t hash(int64_t id) { return static_cast<uint64_t>(id) * 0x9E3779B97F4A7C15ull >> 32; }

struct Slot {
  uint32_t hash;
  int32_t place = -1;  // in `unique`; -1: free
};

// Open addressing, at most half full; grows with the number of distinct ids, so that ids that
// repeat keep it in cache.
struct Table {
  int bits;
  std::vector<Slot> slots;

  explicit Table(int bits) : bits(bits), slots(std::size_t{1} << bits) {}
  std::size_t home(uint32_t hash) const { return hash >> (32 - bits); }
  std::size_t after(std::size_t at) const { return (at + 1) & (slots.size() - 1); }

  void grow() {
    Table larger(bits + 2);
    for (const Slot& slot : slots) {  // in order of home: the larger table is filled in order, too
      if (slot.place < 0) continue;
      std::size_t at = larger.home(slot.hash);
      while (larger.slots[at].place >= 0) at = larger.after(at);
      larger.slots[at] = slot;
    }
    *this = std::move(larger);
  }
};

template <typename Id>
int64_t distinct(const Id* ids, int64_t count, Id* unique, int32_t* inverse) {
  Table table(10);
  int32_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) __builtin_prefetch(&table.slots[table.home(hash(ids[i + kAhead]))]);
    const uint32_t wanted = hash(ids[i]);
    std::size_t at = table.home(wanted);
    for (; table.slots[at].place >= 0; at = table.after(at)) {
      const Slot& slot = table.slots[at];
      if (slot.hash == wanted && (sizeof(Id) == 4 || unique[slot.place] == ids[i])) break;
    }
    if (table.slots[at].place < 0) {
      table.slots[at] = {wanted, found};
      unique[found++] = ids[i];
      inverse[i] = found - 1;
      if (static_cast<std::size_t>(found) * 2 > table.slots.size()) table.grow();
    } else {
      inverse[i] = table.slots[at].place;
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
