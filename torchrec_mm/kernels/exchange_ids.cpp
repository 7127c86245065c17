// Which rank holds the row of each id, and what ranks ask for by table. See exchange_ids.py.

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

// Bags of one id or none of several tables, as many of each; numbers: which tables these are.
struct Part {
    const int64_t* ids;
    const int32_t* lengths;
    const int64_t* numbers;
    int64_t tables, bags;
};

enum : int32_t { kFine, kLongBag, kNoRow };

}  // namespace

// Counting sort of all ids by rank, of a rank's by table. ends: (all_tables, ranks).
extern "C" int32_t route(const Part* parts, int64_t num_parts, const int64_t* ends,
                         int64_t all_tables, int64_t ranks, int64_t* counts, int64_t* ids,
                         int64_t* places) {
    std::vector<int32_t> keys;
    for (int64_t p = 0; p < num_parts; ++p) {
        const Part& part = parts[p];
        const int64_t* id = part.ids;
        for (int64_t table = 0; table < part.tables; ++table) {
            const int64_t number = part.numbers[table];
            const int64_t* end = ends + number * ranks;
            for (int64_t bag = 0; bag < part.bags; ++bag) {
                const int32_t length = part.lengths[table * part.bags + bag];
                if (length > 1) return kLongBag;
                if (!length) continue;
                const int64_t rank = std::upper_bound(end, end + ranks, *id) - end;
                if (*id++ < 0 || rank == ranks) return kNoRow;
                keys.push_back(static_cast<int32_t>(rank * all_tables + number));
                ++counts[keys.back()];
            }
        }
    }
    std::vector<int64_t> next(ranks * all_tables, 0);
    for (int64_t key = 1; key < ranks * all_tables; ++key)
        next[key] = next[key - 1] + counts[key - 1];
    auto key = keys.begin();
    int64_t before = 0;
    for (int64_t p = 0; p < num_parts; ++p) {
        const Part& part = parts[p];
        const int64_t* id = part.ids;
        for (int64_t table = 0; table < part.tables; ++table)
            for (int64_t bag = 0; bag < part.bags; ++bag) {
                if (!part.lengths[table * part.bags + bag]) continue;
                const int64_t rank = *key / all_tables;
                const int64_t* end = ends + part.numbers[table] * ranks;
                const int64_t to = next[*key++]++;
                ids[to] = *id++ - (rank ? end[rank - 1] : 0);
                places[to] = before + bag * part.tables + table;
            }
        before += part.tables * part.bags;
    }
    return kFine;
}

// Where the ids of each table lie among those that came, rank after rank. counts: (ranks, tables).
extern "C" void by_table(const int64_t* counts, int64_t ranks, int64_t tables, int64_t* order,
                         int64_t* begins) {
    std::vector<int64_t> begin(ranks * tables + 1, 0);
    for (int64_t i = 0; i < ranks * tables; ++i) begin[i + 1] = begin[i] + counts[i];
    *begins++ = 0;
    int64_t total = 0;
    for (int64_t table = 0; table < tables; ++table) {
        for (int64_t rank = 0; rank < ranks; ++rank) {
            const int64_t segment = rank * tables + table;
            for (int64_t at = begin[segment]; at < begin[segment + 1]; ++at) order[total++] = at;
        }
        *begins++ = total;
    }
}
