// Σg and Σg·x̂ of every instance and channel, g the gradient before the activation.
//
// Up to kRows rows accumulate in running sums, which are then added to totals held in float64.
#pragma once

#include "coefficients.h"
#include "row_sums.h"

namespace geonorm {

template <class M>
struct ProductsOutput {
  M *grads, *products;  // (instances, channels)
  double* mass;         // rows of each instance, or their weights
};

template <class A>
GEONORM_CLONES void add_to_totals(A* running, double* totals, int64_t count) {
  for (int64_t c = 0; c < count; ++c) {
    totals[c] += running[c];
    running[c] = 0;
  }
}

// Sums of sum_rows (row_sums.h).
template <class T, Activation activation>
struct Products {
  using A = Math<T>;
  static constexpr int64_t kRows = 256;
  Slots slots;
  Matrix<T> grads, rows;
  Coefficients<A> coefficients;
  const A* weights;
  A slope;
  ProductsOutput<A> out;

  Products(const Part& part, bool sorted, Matrix<T> grads, Matrix<T> rows,
           Coefficients<A> coefficients, const A* weights, A slope, ProductsOutput<A> out)
      : slots(part, sorted, 2 * rows.channels * (sizeof(A) + sizeof(double))), grads(grads),
        rows(rows), coefficients(coefficients), weights(weights), slope(slope), out(out) {}

  double* totals(int64_t k) const { return slots.template block<double>(k); }
  A* running(int64_t k) const { return reinterpret_cast<A*>(totals(k) + 2 * rows.channels); }

  GEONORM_INLINE void enter(int64_t k, int64_t) {
    std::fill_n(totals(k), 2 * rows.channels, 0.0);
    std::fill_n(running(k), 2 * rows.channels, A(0));
  }

  GEONORM_INLINE void add(int64_t k, int64_t instance, int64_t row, int64_t count) {
    Slot& slot = slots[k];
    accumulate(running(k), coefficients.of(instance), row, count);
    slot.pending += count;
    for (int64_t r = row; r < row + count; ++r) slot.mass += weights ? weights[r] : 1;
    if (slot.pending >= kRows) flush(k);
  }

  GEONORM_INLINE void accumulate(A* sum, Coefficients<A> at, int64_t row, int64_t count) const {
    A* product = sum + rows.channels;
    over_channels<A, 2>(rows.channels, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value, U = decltype(u)::value;
      using V = Vec<A, W>;
      V sums[U], products[U];
      for (int v = 0; v < U; ++v) {
        sums[v] = raw<V>(sum + c + v * W);
        products[v] = raw<V>(product + c + v * W);
      }
      for (int64_t r = row; r < row + count; ++r) {
        for (int v = 0; v < U; ++v) {
          const int64_t at_c = c + v * W;
          const V xhat = at.template xhat<W>(rows.row(r) + at_c, at_c);
          V grad = read<A, W>(grads.row(r) + at_c);
          if constexpr (activation != Activation::none) {
            grad = deactivate<activation>(grad, at.template affine<W>(xhat, at_c), slope);
          }
          sums[v] += grad;
          products[v] += grad * xhat;
        }
      }
      for (int v = 0; v < U; ++v) {
        __builtin_memcpy(sum + c + v * W, &sums[v], sizeof(V));
        __builtin_memcpy(product + c + v * W, &products[v], sizeof(V));
      }
    });
  }

  void flush(int64_t k) {
    add_to_totals(running(k), totals(k), 2 * rows.channels);
    slots[k].pending = 0;
  }

  void merge(int64_t k, Products& other, int64_t j) {
    other.flush(j);
    add_to_totals(other.totals(j), totals(k), 2 * rows.channels);
    slots[k].mass += other.slots[j].mass;
  }

  void emit(int64_t k) {
    flush(k);
    const int64_t channels = rows.channels, offset = slots[k].instance * channels;
    const double* total = totals(k);
    for (int64_t c = 0; c < channels; ++c) {
      out.grads[offset + c] = static_cast<A>(total[c]);
      out.products[offset + c] = static_cast<A>(total[channels + c]);
    }
    out.mass[slots[k].instance] = slots[k].mass;
  }
};

}  // namespace geonorm
