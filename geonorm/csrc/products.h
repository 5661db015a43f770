// Σg and Σg·(x − centre) of every instance and channel, g the gradient before the activation.
//
// About kRows rows accumulate in running sums, which are then added to totals held in float64.
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
void add_to_totals(A* running, double* totals, int64_t count) {
  vectorized([=](auto) GEONORM_LAMBDA {
    for (int64_t c = 0; c < count; ++c) {
      totals[c] += running[c];
      running[c] = 0;
    }
  });
}

// Sums of sum_rows (row_sums.h).
template <class T>
struct Products {
  using A = Math<T>;
  static constexpr int64_t kRows = 256;
  Slots slots;
  Matrix<T> grads, rows;
  const Lines<A>& lines;
  const A* weights;
  Activation activation;
  A slope;
  ProductsOutput<A> out;

  Products(const Part& part, bool sorted, Matrix<T> grads, Matrix<T> rows,
           const Lines<A>& lines, const A* weights, Activation activation, A slope,
           ProductsOutput<A> out)
      : slots(part, sorted, 2 * rows.channels * (sizeof(A) + sizeof(double))), grads(grads),
        rows(rows), lines(lines), weights(weights), activation(activation), slope(slope),
        out(out) {}

  double* totals(int64_t k) const { return slots.template block<double>(k); }
  A* running(int64_t k) const { return reinterpret_cast<A*>(totals(k) + 2 * rows.channels); }

  void enter(int64_t k) {
    std::fill_n(totals(k), 2 * rows.channels, 0.0);
    std::fill_n(running(k), 2 * rows.channels, A(0));
  }

  template <int B>
  GEONORM_INLINE void add(int64_t k, int64_t instance, int64_t row, int64_t count) {
    Slot& slot = slots[k];
    with_activation(activation, [&](auto tail) GEONORM_LAMBDA {
      by_blocks(rows.channels, row, count, [&](int64_t from, int64_t block) GEONORM_LAMBDA {
        accumulate<B, tail>(running(k), lines.of(instance), from, block);
      });
    });
    slot.pending += count;
    for (int64_t r = row; weights != nullptr && r < row + count; ++r) slot.mass += weights[r];
  }

  GEONORM_INLINE void rest(int64_t k) {
    if (slots[k].pending >= kRows) flush(k);
  }

  template <int B, Activation tail>
  GEONORM_INLINE void accumulate(A* sum, Line<A> at, int64_t row, int64_t count) const {
    const int64_t channels = rows.channels;
    A* product = sum + channels;
    over_channels<B, A, kAbreast<B>>(channels, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value, U = decltype(u)::value;
      using V = Vec<A, W>;
      V sums[U], products[U];
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        sums[v] = raw<V>(sum + c + v * W);
        products[v] = raw<V>(product + c + v * W);
      }
      const T *x = rows.row(row) + c, *g = grads.row(row) + c;
      for (int64_t r = 0; r < count; ++r, x += rows.stride, g += grads.stride) {
        fetch_ahead<U * W>(x, channels);
        fetch_ahead<U * W>(g, channels);
        GEONORM_UNROLL for (int v = 0; v < U; ++v) {
          const V centred = at.template centred<W>(x + v * W, c + v * W);
          V grad = read<A, W>(g + v * W);
          if constexpr (tail != Activation::none) {
            grad = deactivate<tail>(grad, at.template affine<W>(centred, c + v * W), slope);
          }
          sums[v] += grad;
          products[v] += grad * centred;
        }
      }
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        __builtin_memcpy(sum + c + v * W, &sums[v], sizeof(V));
        __builtin_memcpy(product + c + v * W, &products[v], sizeof(V));
      }
    });
  }

  GEONORM_SELDOM void flush(int64_t k) {
    add_to_totals(running(k), totals(k), 2 * rows.channels);
    if (weights == nullptr) slots[k].mass += slots[k].pending;
    slots[k].pending = 0;
  }

  void merge(int64_t k, Products& other, int64_t j) {
    other.flush(j);
    add_to_totals(other.totals(j), totals(k), 2 * rows.channels);
    slots[k].mass += other.slots[j].mass;
  }

  GEONORM_SELDOM void emit(int64_t k) {
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
