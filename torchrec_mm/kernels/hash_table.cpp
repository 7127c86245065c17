// Ids to places in a list by open addressing: see hash_table.py.

#include <cstddef>
#include <cstdint>

namespace {

constexpr int64_t kAhead = 32;  // ids whose slots are on their way from memory
constexpr int64_t kNear = 16;   // ids whose slots are there, and what they name on its way

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
  std::size_t home(int64_t id) const { return hash(id) >> (32 - bits); }

  // The slot that names the id, or the free one where it would be.
  Slot& slot(int64_t id) const {
    const std::size_t last = (std::size_t{1} << bits) - 1;
    const uint32_t wanted = hash(id);
    std::size_t at = wanted >> (32 - bits);
    while (slots[at].place >= 0 && (slots[at].hash != wanted || ids[slots[at].place] != id)) {
      at = (at + 1) & last;
    }
    return slots[at];
  }

  void prefetch(const int64_t* asked, int64_t i, int64_t count) const {
    if (i + kAhead < count) __builtin_prefetch(&slots[home(asked[i + kAhead])]);
    if (i + kNear < count) {
      const Slot& near = slots[home(asked[i + kNear])];
      if (near.place >= 0) __builtin_prefetch(&ids[near.place]);
    }
  }
};

}  // namespace

extern "C" void find_places(Slot* slots, int32_t bits, const int64_t* ids, const int64_t* asked,
                            int64_t count, int32_t* places) {
  const Table table{slots, bits, ids};
  for (int64_t i = 0; i < count; ++i) {
    table.prefetch(asked, i, count);
    places[i] = table.slot(asked[i]).place;
  }
}

// Returns how many of the asked have a place: all, or those before the first that has no room.
extern "C" int64_t add_ids(Slot* slots, int32_t bits, int64_t* ids, int64_t room, int64_t* held,
                           const int64_t* asked, int64_t count, int32_t* places) {
  const Table table{slots, bits, ids};
  int64_t next = *held, i = 0;
  for (; i < count; ++i) {
    table.prefetch(asked, i, count);
    Slot& slot = table.slot(asked[i]);
    if (slot.place < 0) {
      if (next == room) break;
      ids[next] = asked[i];
      slot = {static_cast<int32_t>(next++), Table::hash(asked[i])};
    }
    places[i] = slot.place;
  }
  *held = next;
  return i;
}
