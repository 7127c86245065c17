// Bags of at most one id: look-up, and row-wise Adagrad in the backward pass. See one_id_bags.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "adagrad.h"

namespace {

constexpr int64_t kAhead = 12;  // bags between asking for a row and using it

// The bags of several tables, as many of each: the row of each, -1 if it is empty.
// place: where a bag's row lies in the output; start: where its gradient begins, whose rows are
// stride apart, as they may be columns of a wider matrix.
struct Bags {
    const int64_t* rows;
    int64_t tables, bags, width;

    int64_t count(int64_t) const { return bags; }
    bool full(int64_t table, int64_t bag) const { return row(table, bag) >= 0; }
    int64_t row(int64_t table, int64_t bag) const { return rows[table * bags + bag]; }
    int64_t place(int64_t table, int64_t bag) const { return bag * tables + table; }
    int64_t start(int64_t table, int64_t bag, int64_t stride) const {
        return bag * stride + table * width;
    }
};

// The same of single ids, whose rows lie in the output in the order of the ids.
struct Ids {
    const int64_t* indices;
    const int64_t* order;
    const int64_t* begins;
    int64_t tables, width;

    int64_t count(int64_t table) const { return begins[table + 1] - begins[table]; }
    bool full(int64_t, int64_t) const { return true; }
    int64_t row(int64_t table, int64_t bag) const { return indices[place(table, bag)]; }
    int64_t place(int64_t table, int64_t bag) const { return order[begins[table] + bag]; }
    int64_t start(int64_t table, int64_t bag, int64_t stride) const {
        return place(table, bag) * stride;
    }
};

// What a thread works in: kept, for the system would give and take its memory in every step.
struct Scratch {
    std::vector<int32_t> slots, first, place;
    std::vector<float> sums;

    static Scratch& own() {
        static thread_local Scratch scratch;
        return scratch;
    }
};

// For each bag of one table the first bag that holds the same id, -1 for an empty one.
template <typename In>
bool find_first(const In& in, int64_t table, Scratch& scratch) {
    int bits = 4;
    while ((int64_t{1} << bits) < 2 * in.count(table)) ++bits;
    std::vector<int32_t>& slots = scratch.slots;
    std::vector<int32_t>& first = scratch.first;
    slots.assign(std::size_t{1} << bits, -1);
    bool repeats = false;
    first.resize(in.count(table));
    for (int64_t bag = 0; bag < in.count(table); ++bag) {
        first[bag] = -1;
        if (!in.full(table, bag)) continue;
        const int64_t row = in.row(table, bag);
        std::size_t slot = static_cast<uint64_t>(row) * 0x9E3779B97F4A7C15ull >> (64 - bits);
        while (slots[slot] >= 0 && in.row(table, slots[slot]) != row)
            slot = (slot + 1) & (slots.size() - 1);
        if (slots[slot] < 0) slots[slot] = static_cast<int32_t>(bag);
        else repeats = true;
        first[bag] = slots[slot];
    }
    return repeats;
}

template <typename In>
void look_up(const float* const* weights, const In& in, float* out, int32_t threads) {
#pragma omp parallel num_threads(threads)
    for (int64_t table = 0; table < in.tables; ++table) {
        const int64_t count = in.count(table);
#pragma omp for schedule(static) nowait
        for (int64_t bag = 0; bag < count; ++bag) {
            float* to = out + in.place(table, bag) * in.width;
            if (bag + kAhead < count && in.full(table, bag + kAhead))
                __builtin_prefetch(weights[table] + in.row(table, bag + kAhead) * in.width);
            if (in.full(table, bag))
                std::memcpy(to, weights[table] + in.row(table, bag) * in.width,
                            in.width * sizeof(float));
            else
                std::memset(to, 0, in.width * sizeof(float));
        }
    }
}

bool is_row(int64_t index, int64_t rows) {
    return static_cast<uint64_t>(index) < static_cast<uint64_t>(rows);
}

// One table's step, whose bags its threads share.
// The gradients of a row's bags are summed in their order first, so that a row is updated once.
template <typename In>
struct Step {
    float* const* weights;
    float* const* momentum;
    const In& in;
    const float* gradient;
    int64_t stride;
    const float* learning_rates;
    float eps;
    Scratch& scratch;

    const float* given(int64_t table, int64_t bag) const {
        return gradient + in.start(table, bag, stride);
    }

    void operator()(int64_t table, int32_t threads) {
        const int64_t count = in.count(table);
        const bool repeats = find_first(in, table, scratch);
        if (repeats) add_up(table, count);
        const int32_t* first = scratch.first.data();
        const int32_t* place = scratch.place.data();
        const float* sums = scratch.sums.data();
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
        for (int64_t bag = 0; bag < count; ++bag) {
            if (bag + kAhead < count && first[bag + kAhead] >= 0) {
                const int64_t ahead = in.row(table, bag + kAhead);
                __builtin_prefetch(weights[table] + ahead * in.width, 1);
                __builtin_prefetch(momentum[table] + ahead, 1);
            }
            if (first[bag] != bag) continue;
            const float* g = repeats && place[bag] >= 0 ? sums + place[bag] * in.width
                                                        : given(table, bag);
            const int64_t row = in.row(table, bag);
            adagrad(weights[table] + row * in.width, momentum[table][row], g, in.width,
                    learning_rates[table], eps);
        }
    }

    void add_up(int64_t table, int64_t count) {
        std::vector<int32_t>& place = scratch.place;
        std::vector<float>& sums = scratch.sums;
        place.assign(count, -1);
        sums.clear();
        for (int64_t bag = 0; bag < count; ++bag) {
            const int32_t owner = scratch.first[bag];
            if (owner < 0 || owner == bag) continue;
            if (place[owner] < 0) {
                place[owner] = static_cast<int32_t>(sums.size() / in.width);
                const float* g = given(table, owner);
                sums.insert(sums.end(), g, g + in.width);
            }
            float* sum = sums.data() + place[owner] * in.width;
            const float* g = given(table, bag);
            for (int64_t i = 0; i < in.width; ++i) sum[i] += g[i];
        }
    }
};

// Many tables are dealt out to threads, so that these meet once; of few, all share each.
template <typename In>
void update(float* const* weights, float* const* momentum, const In& in, const float* gradient,
            int64_t stride, const float* learning_rates, float eps, int32_t threads) {
    auto made = [&] {
        Scratch& own = Scratch::own();
        return Step<In>{weights, momentum, in, gradient, stride, learning_rates, eps, own};
    };
    if (in.tables < 4 * threads) {  // in no region of one thread: there each would start threads
        Step<In> step = made();
        for (int64_t table = 0; table < in.tables; ++table) step(table, threads);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        Step<In> step = made();
#pragma omp for schedule(dynamic, 1)
        for (int64_t table = 0; table < in.tables; ++table) step(table, 1);
    }
}

}  // namespace

enum : int32_t { kFine, kLongBag, kNoRow };

// The row of each bag, out of ids one after another and how many of them each bag holds.
extern "C" int32_t place_bags(const int64_t* indices, const int32_t* lengths, int64_t tables,
                              int64_t bags, const int64_t* rows, int64_t* out) {
    for (int64_t table = 0; table < tables; ++table)
        for (int64_t bag = 0; bag < bags; ++bag, ++out) {
            const int32_t length = lengths[table * bags + bag];
            if (length > 1) return kLongBag;
            if (length && !is_row(*indices, rows[table])) return kNoRow;
            *out = length ? *indices++ : -1;
        }
    return kFine;
}

extern "C" void look_up_bags(const float* const* weights, Bags in, float* out, int32_t threads) {
    look_up(weights, in, out, threads);
}

// kNoRow, and nothing done, if an index is no row of its table.
extern "C" int32_t look_up_ids(const float* const* weights, const int64_t* rows, Ids in, float* out,
                               int32_t threads) {
    for (int64_t table = 0; table < in.tables; ++table)
        for (int64_t bag = 0; bag < in.count(table); ++bag)
            if (!is_row(in.row(table, bag), rows[table])) return kNoRow;
    look_up(weights, in, out, threads);
    return kFine;
}

extern "C" void update_bags(float* const* weights, float* const* momentum, Bags in,
                            const float* gradient, int64_t stride, const float* learning_rates,
                            float eps, int32_t threads) {
    update(weights, momentum, in, gradient, stride, learning_rates, eps, threads);
}

extern "C" void update_ids(float* const* weights, float* const* momentum, Ids in,
                           const float* gradient, int64_t stride, const float* learning_rates,
                           float eps, int32_t threads) {
    update(weights, momentum, in, gradient, stride, learning_rates, eps, threads);
}
