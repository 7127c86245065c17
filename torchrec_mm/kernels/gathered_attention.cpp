// Attention over rows gathered from one table, on CPU; gathered_attention.py says what it means.
//
// All impressions of one row of `index` come one after the other, so that its K table rows are read
// from the first cache. The table's gradient is shared out by slot: a slot's additions come in one
// order, whatever the number of threads.
//
// Shape letters: I impressions, M rows of index, K kept behaviours, S slots, E embedding width.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "lanes.h"

namespace {

struct Inputs {  // mirrored by gathered_attention.py
  const float *query, *table;
  const int32_t *index, *length;
  const float *cosine, *mix;           // null: plain dot products
  const int32_t* request;              // null: impression i uses row i
  int64_t I, M, K, S, width, threads;  // width: E, zeros added up to a multiple of LANES
  float scale;                         // 1 / sqrt(E)
};

// Impressions by row of index: those of row m are order[start[m]] up to order[start[m + 1]].
struct Groups {
  std::vector<int64_t> start, order;

  explicit Groups(const Inputs& in) : start(in.M + 1), order(in.I) {
    std::iota(order.begin(), order.end(), 0);
    if (in.I && !in.request) {
      std::iota(start.begin(), start.end(), 0);
      return;
    }
    for (int64_t i = 0; i < in.I; ++i) ++start[in.request[i] + 1];
    std::partial_sum(start.begin(), start.end(), start.begin());
    std::vector<int64_t> next(start.begin(), start.end() - 1);
    for (int64_t i = 0; i < in.I; ++i) order[next[in.request[i]]++] = i;
  }
};

// A sum of rows, N lanes wide: in registers where the compiler knows N, else (N = 0) in memory.
template <int N>
struct Row : std::array<Lanes, N> {
  explicit Row(int64_t) : std::array<Lanes, N>{} {}
};
template <>
struct Row<0> : std::vector<Lanes> {
  explicit Row(int64_t lanes) : std::vector<Lanes>(lanes) {}
};

template <int N>
struct Kernel {
  const Inputs& in;
  const Groups groups{in};
  // Rows that a thread takes at once: neighbours often share behaviours.
  const int64_t share = std::max<int64_t>(1, in.M / (8 * in.threads));
  const float a = in.mix ? in.mix[0] : 1, b = in.mix ? in.mix[1] : 0, c = in.mix ? in.mix[2] : 0;

  int64_t lanes() const { return N ? N : in.width / LANES; }
  int64_t width() const { return lanes() * LANES; }

  void add(Row<N>& sum, float by, const float* x) const {
    for (int64_t l = 0; l < lanes(); ++l) sum[l] += by * load(x + l * LANES);
  }

  void store(const Row<N>& sum, float* out) const {
    for (int64_t l = 0; l < lanes(); ++l) std::memcpy(out + l * LANES, &sum[l], sizeof sum[l]);
  }

  // out[k] = times * <x, table[slots[k]]>
  void dots(const int32_t* slots, int64_t n, const float* x, float times, float* out) const {
    for (int64_t k = 0; k < n; ++k) {
      const float* y = in.table + slots[k] * width();
      Lanes sum{};
      for (int64_t l = 0; l < lanes(); ++l) sum += load(x + l * LANES) * load(y + l * LANES);
      out[k] = times * total(sum);
    }
  }

  // Sum over k of by[k] * table[slots[k]]
  void weigh(const int32_t* slots, int64_t n, const float* by, float* out) const {
    Row<N> sum(lanes());
    for (int64_t k = 0; k < n; ++k) add(sum, by[k], in.table + slots[k] * width());
    store(sum, out);
  }

  void softmax(int64_t i, int64_t n, const float* dot, float* weight) const {
    std::copy_n(dot, n, weight);
    if (in.cosine) {
      const float* cosine = in.cosine + i * in.K;
      for (int64_t k = 0; k < n; ++k) weight[k] = a * dot[k] + (b + c * dot[k]) * cosine[k];
    }
    float top = -INFINITY, total = 0;
#pragma omp simd reduction(max : top)
    for (int64_t k = 0; k < n; ++k) top = std::max(top, weight[k]);
    for (int64_t k = 0; k < n; ++k) weight[k] = exponential(weight[k] - top);
#pragma omp simd reduction(+ : total)
    for (int64_t k = 0; k < n; ++k) total += weight[k];
    for (int64_t k = 0; k < n; ++k) weight[k] /= total;
  }

  void forward(float* dot, float* weight, float* interest, float* mean) const {
#pragma omp parallel for schedule(dynamic, share) num_threads(in.threads)
    for (int64_t m = 0; m < in.M; ++m) {
      const int32_t* slots = in.index + m * in.K;
      const int64_t n = in.length[m];
      for (int64_t j = groups.start[m]; j < groups.start[m + 1]; ++j) {
        const int64_t i = groups.order[j], at = i * in.K;
        dots(slots, n, in.query + i * width(), in.scale, dot + at);
        softmax(i, n, dot + at, weight + at);
        weigh(slots, n, weight + at, interest + i * width());
      }
      const std::vector<float> equal(n, 1.f / n);
      weigh(slots, n, equal.data(), mean + m * width());
    }
  }

  // Leaves in `by` (I, K) what of query_i goes into the gradient of each gathered row.
  void backward_query(const float* dot, const float* weight, const float* gradient, float* by,
                      float* grad_query, float* grad_mix) const {
#pragma omp parallel for schedule(dynamic, share) num_threads(in.threads)
    for (int64_t m = 0; m < in.M; ++m) {
      const int32_t* slots = in.index + m * in.K;
      const int64_t n = in.length[m];
      for (int64_t j = groups.start[m]; j < groups.start[m + 1]; ++j) {
        const int64_t i = groups.order[j], at = i * in.K;
        dots(slots, n, gradient + i * width(), 1, by + at);
        backward_scores(i, n, dot + at, weight + at, by + at, grad_mix);
        weigh(slots, n, by + at, grad_query + i * width());
      }
    }
  }

  // `by`: gradient of each weight in, gradient of each unscaled dot product out.
  void backward_scores(int64_t i, int64_t n, const float* dot, const float* weight, float* by,
                       float* grad_mix) const {
    float centre = 0, of_a = 0, of_b = 0, of_c = 0;
#pragma omp simd reduction(+ : centre)
    for (int64_t k = 0; k < n; ++k) centre += weight[k] * by[k];
    for (int64_t k = 0; k < n; ++k) by[k] = weight[k] * (by[k] - centre);
    if (in.cosine) {
      const float* cosine = in.cosine + i * in.K;
#pragma omp simd reduction(+ : of_a, of_b, of_c)
      for (int64_t k = 0; k < n; ++k) {
        of_a += by[k] * dot[k], of_b += by[k] * cosine[k], of_c += by[k] * dot[k] * cosine[k];
        by[k] *= a + c * cosine[k];
      }
      grad_mix[3 * i] = of_a, grad_mix[3 * i + 1] = of_b, grad_mix[3 * i + 2] = of_c;
    }
    for (int64_t k = 0; k < n; ++k) by[k] *= in.scale;
  }

  void backward_table(const float* weight, const float* by, const float* gradient,
                      const float* grad_mean, float* grad_table) const {
#pragma omp parallel for schedule(static, 1) num_threads(in.threads)
    for (int64_t part = 0; part < in.threads; ++part)
      for (int64_t m = 0; m < in.M; ++m) {
        if (m + 1 < in.M) ask(part, m + 1, grad_table);
        for (int64_t k = 0; k < in.length[m]; ++k) {
          const int32_t slot = in.index[m * in.K + k];
          if (part_of(slot) == part)
            add_row(m, k, weight, by, gradient, grad_mean, grad_table + slot * width());
        }
      }
  }

  // Has the cache fetch what the next row of index adds to, while this one is worked on.
  void ask(int64_t part, int64_t m, const float* grad_table) const {
    for (int64_t k = 0; k < in.length[m]; ++k) {
      const int32_t slot = in.index[m * in.K + k];
      if (part_of(slot) != part) continue;
      for (int64_t l = 0; l < lanes(); ++l)
        __builtin_prefetch(grad_table + slot * width() + l * LANES, 1);
    }
  }

  // A multiplicative hash: busy slots that lie together are shared out evenly.
  int64_t part_of(int32_t slot) const {
    return (static_cast<uint64_t>(static_cast<uint32_t>(slot) * 2654435769u) * in.threads) >> 32;
  }

  void add_row(int64_t m, int64_t k, const float* weight, const float* by, const float* gradient,
               const float* grad_mean, float* out) const {
    Row<N> sum(lanes());
    add(sum, 1, out);
    add(sum, 1.f / in.length[m], grad_mean + m * width());
    for (int64_t j = groups.start[m]; j < groups.start[m + 1]; ++j) {
      const int64_t i = groups.order[j];
      add(sum, weight[i * in.K + k], gradient + i * width());
      add(sum, by[i * in.K + k], in.query + i * width());
    }
    store(sum, out);
  }
};

template <typename F>
void with_width(const Inputs& in, const F& run) {
  switch (in.width) {
    case 16: return run(Kernel<1>{in});
    case 32: return run(Kernel<2>{in});
    case 48: return run(Kernel<3>{in});
    case 64: return run(Kernel<4>{in});
    case 128: return run(Kernel<8>{in});
    default: return run(Kernel<0>{in});
  }
}

}  // namespace

extern "C" {

// 0, or the input that points outside its range: 1 request, 2 length, 3 index.
int32_t fault(const Inputs* in) {
  for (int64_t i = 0; in->request && i < in->I; ++i)
    if (in->request[i] < 0 || in->request[i] >= in->M) return 1;
  for (int64_t m = 0; m < in->M; ++m) {
    if (in->length[m] < 0 || in->length[m] > in->K) return 2;
    for (int64_t k = 0; k < in->length[m]; ++k) {
      const int32_t slot = in->index[m * in->K + k];
      if (slot < 0 || slot >= in->S) return 3;
    }
  }
  return 0;
}

// Out: dot (I, K), weight (I, K), interest (I, E), mean (M, E).
void forward(const Inputs* in, float* dot, float* weight, float* interest, float* mean) {
  with_width(*in, [&](const auto& kernel) { kernel.forward(dot, weight, interest, mean); });
}

// Out: by (I, K), grad_query (I, E), grad_mix (I, 3); adds to grad_table (S, E).
void backward(const Inputs* in, const float* dot, const float* weight, const float* gradient,
              const float* grad_mean, float* by, float* grad_query, float* grad_mix,
              float* grad_table) {
  with_width(*in, [&](const auto& kernel) {
    kernel.backward_query(dot, weight, gradient, by, grad_query, grad_mix);
    kernel.backward_table(weight, by, gradient, grad_mean, grad_table);
  });
}
}
