// Ids to places in a list by open addressing: see hash_table.py.

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace {

constexpr int64_t kBlock = 64;  // ids whose slots are on their way from memory at the same time

// The hash is a filter: only where it is the wanted one is the id itself looked at.
struct Slot {
  int32_t place;  // in `ids`; negative: free
  uint32_t hash;
};
static_assert(sizeof(Slot) == 8);

struct Table {
  Slot* slots;
  int bits;
  const int64_t* ids;

  static uint32_t hash(int64_t id) {
    return static_cast<uint64_t>(id) * 0x9E3779B97F4A7C15ull >> 32;
  }
  std::size_t home(uint32_t hash) const { return hash >> (32 - bits); }
  std::size_t after(std::size_t at) const { return (at + 1) & ((std::size_t{1} << bits) - 1); }

  // The slot that names the id, or the free one where it would be.
  Slot& slot(int64_t id) const {
    const uint32_t wanted = hash(id);
    std::size_t at = home(wanted);
    while (slots[at].place >= 0 && (slots[at].hash != wanted || ids[slots[at].place] != id)) {
      at = after(at);
    }
    return slots[at];
  }

  // The place of the first id of each one's hash, or of a free slot: nearly always the right one.
  void guess(const int64_t* asked, int64_t count, int32_t* places) const {
    uint32_t wanted[kBlock];
    for (int64_t i = 0; i < count; ++i) {
      wanted[i] = hash(asked[i]);
      __builtin_prefetch(&slots[home(wanted[i])]);
    }
    for (int64_t i = 0; i < count; ++i) {
      std::size_t at = home(wanted[i]);
      while (slots[at].place >= 0 && slots[at].hash != wanted[i]) at = after(at);
      places[i] = slots[at].place;
      if (places[i] >= 0) __builtin_prefetch(&ids[places[i]]);
    }
  }
};

}  // namespace

extern "C" void find_places(Slot* slots, int32_t bits, const int64_t* ids, const int64_t* asked,
                            int64_t count, int32_t* places) {
  const Table table{slots, bits, ids};
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, count);
    table.guess(asked + begin, end - begin, places + begin);
    for (int64_t i = begin; i < end; ++i) {
      if (places[i] >= 0 && ids[places[i]] != asked[i]) places[i] = table.slot(asked[i]).place;
    }
  }
}

// Returns how many of the asked have a place: all, or those before the first that has no room.
extern "C" int64_t add_ids(Slot* slots, int32_t bits, int64_t* ids, int64_t room, int64_t* held,
                           const int64_t* asked, int64_t count, int32_t* places) {
  const Table table{slots, bits, ids};
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, count);
    table.guess(asked + begin, end - begin, places + begin);
    for (int64_t i = begin; i < end; ++i) {
      if (places[i] >= 0 && ids[places[i]] == asked[i]) continue;
      Slot& slot = table.slot(asked[i]);  // where it is by now, if it came twice in this block
      if (slot.place < 0) {
        if (*held == room) return i;
        ids[*held] = asked[i];
        slot = {static_cast<int32_t>((*held)++), Table::hash(asked[i])};
      }
      places[i] = slot.place;
    }
  }
  return count;
}
