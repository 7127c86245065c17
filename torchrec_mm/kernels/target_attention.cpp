// DIN's target attention over jagged requests, on CPU; target_attention.py says what it means.
//
// The activation unit's first layer is linear in a behaviour once the target is known, so each
// impression has a matrix of its own, unit = product * target + behaviour's weights, and a pair
// costs one product of it with the behaviour, in registers. Where gradients are wanted, the hidden
// units of every pair are kept for them.
//
// Sums of gradients come in one order whatever the number of threads: those of the weights by
// blocks of requests, those of the table by slot.
//
// Shape letters: R requests, I impressions, T behaviours, P pairs, S slots, E embedding width,
// H = LANES hidden units.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "lanes.h"

namespace {

constexpr int64_t MOST_BLOCKS = 32, REQUESTS_OF_BLOCK = 8;

struct Inputs {  // mirrored by target_attention.py
  const float *targets, *table;  // (I, E), (S, E)
  const int32_t* index;          // (T)
  const int64_t *candidate_offsets, *behaviour_offsets;  // (R + 1)
  const float* cosine;  // (P), impression after impression; null: none
  const float *behaviour_weight, *behaviour_bias, *target_weight, *product;  // (H, E), but (H)
  const float *side, *score;  // (H); side null: no side information
  int64_t R, S, width, threads;  // width: E, zeros added up to a multiple of LANES
};

// LANES floats, in registers where the loops around them are short.
struct Sum {
  Register part[REGISTERS] = {};

  static Sum of(const float* x) {
    Sum sum;
    for (int p = 0; p < REGISTERS; ++p) sum.part[p] = load_register(x + p * IN_REGISTER);
    return sum;
  }
  // Stay in registers: the compiler would read it from memory anew each time it is used.
  void hold() {
#if defined(__x86_64__) && defined(__AVX__)
    for (int p = 0; p < REGISTERS; ++p) asm("" : "+x"(part[p]));
#endif
  }
  void add(const Sum& x, float by) {
    for (int p = 0; p < REGISTERS; ++p) part[p] += x.part[p] * by;
  }
  void add(const Sum& x) {
    for (int p = 0; p < REGISTERS; ++p) part[p] += x.part[p];
  }
  void add(const Sum& x, const Sum& y) {
    for (int p = 0; p < REGISTERS; ++p) part[p] += x.part[p] * y.part[p];
  }
  void put(float* x) const {
    for (int p = 0; p < REGISTERS; ++p) store(part[p], x + p * IN_REGISTER);
  }
  float in_all() const {
    Register one = part[0];
    for (int p = 1; p < REGISTERS; ++p) one += part[p];
    return total(one);
  }
};

// (H, E) by columns: entry e is what column e adds to each hidden unit.
struct Columns : std::vector<float> {
  explicit Columns(int64_t width) : std::vector<float>(width * LANES) {}
  Columns(const float* rows, int64_t width) : Columns(width) {
    for (int64_t h = 0; h < LANES; ++h)
      for (int64_t e = 0; e < width; ++e) at(e)[h] = rows[h * width + e];
  }
  float* at(int64_t e) { return data() + e * LANES; }
  Sum get(int64_t e) const { return Sum::of(data() + e * LANES); }
  void add(int64_t e, const Sum& x, float by) {
    Sum sum = get(e);
    sum.add(x, by);
    sum.put(at(e));
  }
  void add_rows_to(float* rows) const {
    const int64_t width = size() / LANES;
    for (int64_t h = 0; h < LANES; ++h)
      for (int64_t e = 0; e < width; ++e) rows[h * width + e] += (*this)[e * LANES + h];
  }
};

// Gradients of the weights, as far as one block of requests goes.
struct WeightGradients {
  Columns behaviour, target, product;
  Sum bias, side, score;
  explicit WeightGradients(int64_t width) : behaviour(width), target(width), product(width) {}
};

struct Unit {  // one impression's activation unit
  Columns columns;
  Sum rest;  // what does not depend on the behaviour
  explicit Unit(int64_t width) : columns(width) {}
};

struct Kernel {
  const Inputs& in;
  const int64_t width = in.width, blocks = blocks_of(in);

  static int64_t blocks_of(const Inputs& in) {
    return std::clamp<int64_t>(in.R / REQUESTS_OF_BLOCK, 1, MOST_BLOCKS);
  }

  const Columns of_behaviour{in.behaviour_weight, width}, of_target{in.target_weight, width};
  const Columns of_product{in.product, width};
  const Sum bias = Sum::of(in.behaviour_bias), score = Sum::of(in.score);
  const Sum side = in.side ? Sum::of(in.side) : Sum{};

  const float* value(int64_t behaviour) const { return in.table + in.index[behaviour] * width; }

  int64_t candidates(int64_t r) const {
    return in.candidate_offsets[r + 1] - in.candidate_offsets[r];
  }
  int64_t behaviours(int64_t r) const {
    return in.behaviour_offsets[r + 1] - in.behaviour_offsets[r];
  }

  // First pair of each request: a request's pairs lie together, candidate after candidate.
  std::vector<int64_t> pair_offsets() const {
    std::vector<int64_t> offsets(in.R + 1);
    for (int64_t r = 0; r < in.R; ++r)
      offsets[r + 1] = offsets[r] + candidates(r) * behaviours(r);
    return offsets;
  }

  void prepare(const float* target, Unit& unit) const {
    Sum rest = bias;
    for (int64_t e = 0; e < width; ++e) {
      Sum column = of_behaviour.get(e);
      column.add(of_product.get(e), target[e]);
      column.put(unit.columns.at(e));
      rest.add(of_target.get(e), target[e]);
    }
    unit.rest = rest;
  }

  // The same matrix by rows.
  void prepare_rows(const float* target, float* rows) const {
    for (int64_t h = 0; h < LANES; ++h)
      for (int64_t e = 0; e < width; ++e)
        rows[h * width + e] =
            in.product[h * width + e] * target[e] + in.behaviour_weight[h * width + e];
  }

  // units (count, H): hidden units after the activation. scores (count).
  void all_hidden(const Unit& unit, int64_t first, int64_t count, const float* cosine,
                  float* units, float* scores) const {
    int64_t k = 0;
    for (; k + 4 <= count; k += 4) hidden<4>(unit, first, k, cosine, units, scores);
    for (; k < count; ++k) hidden<1>(unit, first, k, cosine, units, scores);
  }

  template <int N>
  void hidden(const Unit& unit, int64_t first, int64_t k, const float* cosine, float* units,
              float* scores) const {
    const float* rows[N];
    Sum sum[N];
    for (int n = 0; n < N; ++n) {
      rows[n] = value(first + k + n);
      sum[n] = unit.rest;
      if (cosine) sum[n].add(side, cosine[k + n]);
    }
    for (int64_t e = 0; e < width; ++e) {
      Sum column = unit.columns.get(e);
      column.hold();
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[n].add(column, rows[n][e]);
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      sum[n] = positive(sum[n]);
      sum[n].put(units + (k + n) * LANES);
      Sum product;
      product.add(sum[n], score);
      scores[k + n] = product.in_all();
    }
  }

  // units: (P, H) out, hidden units after the activation; null: not wanted.
  void forward(float* interest, float* mean_cosine, float* weight, float* units) const {
    const std::vector<int64_t> pairs = pair_offsets();
#pragma omp parallel num_threads(in.threads)
    {
      Unit unit(width);
      std::vector<float> scratch;
#pragma omp for schedule(dynamic, 4)
      for (int64_t r = 0; r < in.R; ++r) {
        const int64_t first = in.behaviour_offsets[r], count = behaviours(r);
        scratch.resize(count * LANES);
        for (int64_t c = 0; c < candidates(r); ++c) {
          const int64_t i = in.candidate_offsets[r] + c, at = pairs[r] + c * count;
          const float* cosine = in.cosine ? in.cosine + at : nullptr;
          float* hidden = units ? units + at * LANES : scratch.data();
          prepare(in.targets + i * width, unit);
          all_hidden(unit, first, count, cosine, hidden, weight + at);
          softmax(weight + at, count);
          for (int64_t e = 0; e < width; e += LANES)
            weigh(first, count, weight + at, e, interest + i * width);
          if (!in.side) continue;  // of no pairs at all the cosines have no address
          float mean = 0;
          for (int64_t k = 0; k < count; ++k) mean += weight[at + k] * cosine[k];
          mean_cosine[i] = mean;
        }
      }
    }
  }

  static Sum positive(Sum x) {
    for (int p = 0; p < REGISTERS; ++p) x.part[p] = x.part[p] > 0 ? x.part[p] : Register{};
    return x;
  }

  static void softmax(float* weight, int64_t count) {
    float top = -INFINITY, sum = 0;
#pragma omp simd reduction(max : top)
    for (int64_t k = 0; k < count; ++k) top = std::max(top, weight[k]);
    for (int64_t k = 0; k < count; ++k) weight[k] = exponential(weight[k] - top);
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < count; ++k) sum += weight[k];
    for (int64_t k = 0; k < count; ++k) weight[k] /= sum;
  }

  // Sum of by[k] * value(first + k), LANES columns from e on.
  void weigh(int64_t first, int64_t count, const float* by, int64_t e, float* out) const {
    Sum even, odd;  // two, so that an addition need not wait for the one before
    int64_t k = 0;
    for (; k + 2 <= count; k += 2) {
      even.add(Sum::of(value(first + k) + e), by[k]);
      odd.add(Sum::of(value(first + k + 1) + e), by[k + 1]);
    }
    if (k < count) even.add(Sum::of(value(first + k) + e), by[k]);
    even.add(odd);
    even.put(out + e);
  }

  void backward(const float* weight, const float* units, const float* grad_interest,
                const float* grad_mean,
                float* grad_targets, float* grad_table, float* grad_values,
                std::vector<WeightGradients>& grads) const {
    const std::vector<int64_t> pairs = pair_offsets();
#pragma omp parallel for schedule(dynamic, 1) num_threads(in.threads)
    for (int64_t block = 0; block < blocks; ++block) {
      Columns columns(width);
      std::vector<float> rows(LANES * width), gradients, by;
      for (int64_t r = in.R * block / blocks; r < in.R * (block + 1) / blocks; ++r) {
        const int64_t first = in.behaviour_offsets[r], count = behaviours(r);
        gradients.resize(count * LANES);
        by.resize(count);
        std::fill_n(grad_values + first * width, count * width, 0.f);
        for (int64_t c = 0; c < candidates(r); ++c) {
          const int64_t i = in.candidate_offsets[r] + c, at = pairs[r] + c * count;
          const float* cosine = in.cosine ? in.cosine + at : nullptr;
          prepare_rows(in.targets + i * width, rows.data());
          backward_scores(first, count, weight + at, cosine, grad_interest + i * width,
                          cosine ? grad_mean[i] : 0, by.data());
          const Sum rest = backward_units(count, by.data(), cosine, units + at * LANES,
                                          gradients.data(), grads[block]);
          for (int64_t e = 0; e < width; e += LANES)
            backward_values(count, gradients.data(), weight + at, grad_interest + i * width,
                            rows.data(), e, grad_values + first * width);
          backward_columns(first, count, gradients.data(), columns);
          backward_target(in.targets + i * width, rest, columns, grad_targets + i * width,
                          grads[block]);
        }
      }
    }
    scatter(grad_values, grad_table);
  }

  // by[k]: gradient of the score of behaviour k.
  void backward_scores(int64_t first, int64_t count, const float* weight, const float* cosine,
                       const float* gradient, float grad_mean, float* by) const {
    float centre = 0;
    for (int64_t k = 0; k < count; ++k) {
      Sum sum;
      for (int64_t e = 0; e < width; e += LANES)
        sum.add(Sum::of(value(first + k) + e), Sum::of(gradient + e));
      by[k] = sum.in_all();
      if (cosine) by[k] += grad_mean * cosine[k];
      centre += weight[k] * by[k];
    }
    for (int64_t k = 0; k < count; ++k) by[k] = weight[k] * (by[k] - centre);
  }

  // gradients (count, H) out: of the hidden units before the activation. Returns their sum.
  Sum backward_units(int64_t count, const float* by, const float* cosine, const float* units,
                     float* gradients, WeightGradients& grads) const {
    Sum of_score = grads.score, of_side = grads.side, of_bias;
    for (int64_t k = 0; k < count; ++k) {
      const Sum unit = Sum::of(units + k * LANES);
      of_score.add(unit, by[k]);
      Sum gradient;
      for (int p = 0; p < REGISTERS; ++p)
        gradient.part[p] = unit.part[p] > 0 ? by[k] * score.part[p] : Register{};
      gradient.put(gradients + k * LANES);
      of_bias.add(gradient);
      if (cosine) of_side.add(gradient, cosine[k]);
    }
    grads.score = of_score;
    grads.side = of_side;
    grads.bias.add(of_bias);
    return of_bias;
  }

  // Gradients of the request's behaviours, LANES columns from e on, added to those it has.
  void backward_values(int64_t count, const float* units, const float* weight,
                       const float* gradient, const float* rows, int64_t e, float* out) const {
    const Sum of_interest = Sum::of(gradient + e);
    int64_t k = 0;
    for (; k + 4 <= count; k += 4) values<4>(k, units, weight, of_interest, rows, e, out);
    for (; k < count; ++k) values<1>(k, units, weight, of_interest, rows, e, out);
  }

  template <int N>
  void values(int64_t k, const float* units, const float* weight, const Sum& of_interest,
              const float* rows, int64_t e, float* out) const {
    Sum sum[N];
    for (int n = 0; n < N; ++n) {
      sum[n] = Sum::of(out + (k + n) * width + e);
      sum[n].add(of_interest, weight[k + n]);
    }
    for (int64_t h = 0; h < LANES; ++h) {
      Sum row = Sum::of(rows + h * width + e);
      row.hold();
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sum[n].add(row, units[(k + n) * LANES + h]);
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sum[n].put(out + (k + n) * width + e);
  }

  // Gradient of the impression's own matrix.
  void backward_columns(int64_t first, int64_t count, const float* units,
                        Columns& columns) const {
    for (int64_t e = 0; e < width; e += 4) {
      Sum sum[4];
      for (int64_t k = 0; k < count; ++k) {
        Sum unit = Sum::of(units + k * LANES);
        unit.hold();
        const float* row = value(first + k) + e;
#pragma GCC unroll 4
        for (int n = 0; n < 4; ++n) sum[n].add(unit, row[n]);
      }
#pragma GCC unroll 4
      for (int n = 0; n < 4; ++n) sum[n].put(columns.at(e + n));
    }
  }

  // From that matrix into the target and the weights that it is made of.
  void backward_target(const float* target, const Sum& rest, const Columns& columns,
                       float* grad_target, WeightGradients& grads) const {
    for (int64_t e = 0; e < width; ++e) {
      const Sum column = columns.get(e);
      grads.behaviour.add(e, column, 1);
      grads.product.add(e, column, target[e]);
      grads.target.add(e, rest, target[e]);
      Sum sum;
      sum.add(column, of_product.get(e));
      sum.add(rest, of_target.get(e));
      grad_target[e] = sum.in_all();
    }
  }

  // Adds each behaviour's gradient to its slot's.
  void scatter(const float* grad_values, float* grad_table) const {
    const int64_t count = in.behaviour_offsets[in.R];
#pragma omp parallel for schedule(static, 1) num_threads(in.threads)
    for (int64_t part = 0; part < in.threads; ++part)
      for (int64_t b = 0; b < count; ++b) {
        if (in.index[b] % in.threads != part) continue;
        float* out = grad_table + in.index[b] * width;
        for (int64_t e = 0; e < width; e += LANES) {
          Sum sum = Sum::of(out + e);
          sum.add(Sum::of(grad_values + b * width + e));
          sum.put(out + e);
        }
      }
  }
};

void add(const Sum& sum, float* to) {
  Sum both = Sum::of(to);
  both.add(sum);
  both.put(to);
}

}  // namespace

extern "C" {

// P, the number of pairs, or -1 if an index is out of its range.
int64_t count_pairs(const Inputs* in) {
  for (int64_t b = 0; b < in->behaviour_offsets[in->R]; ++b)
    if (in->index[b] < 0 || in->index[b] >= in->S) return -1;
  int64_t pairs = 0;
  for (int64_t r = 0; r < in->R; ++r)
    pairs += (in->candidate_offsets[r + 1] - in->candidate_offsets[r]) *
             (in->behaviour_offsets[r + 1] - in->behaviour_offsets[r]);
  return pairs;
}

// Out: interest (I, E), mean_cosine (I), weight (P), units (P, H) or null.
void forward(const Inputs* in, float* interest, float* mean_cosine, float* weight, float* units) {
  Kernel{*in}.forward(interest, mean_cosine, weight, units);
}

// Out: grad_targets (I, E); scratch: grad_values (T, E). Adds to grad_table (S, E) and to those of
// the weights, shaped like them.
void backward(const Inputs* in, const float* weight, const float* units,
              const float* grad_interest, const float* grad_mean, float* grad_targets, float* grad_table, float* grad_values,
              float* behaviour_weight, float* behaviour_bias, float* target_weight,
              float* product, float* side, float* score) {
  const Kernel kernel{*in};
  std::vector<WeightGradients> grads(kernel.blocks, WeightGradients(in->width));
  kernel.backward(weight, units, grad_interest, grad_mean, grad_targets, grad_table,
                       grad_values, grads);
  for (const WeightGradients& block : grads) {
    block.behaviour.add_rows_to(behaviour_weight);
    block.target.add_rows_to(target_weight);
    block.product.add_rows_to(product);
    add(block.bias, behaviour_bias);
    add(block.score, score);
    if (side) add(block.side, side);
  }
}
}
