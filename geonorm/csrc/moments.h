// Mean and squared deviation of every instance and channel, without ever taking E[x²] − E[x]².
//
// About kChunk rows accumulate in the running sums Σ(x − c) and Σ(x − c)², centred on the mean c of
// the rows before them; the chunk then merges into totals held in float64. The first chunk is centred
// on its first row and has no more rows than a tile, and no chunk has many more than came before it:
// this bounds what the centring loses, wherever the first row lies.
#pragma once

#include <cmath>

#include "coefficients.h"
#include "row_sums.h"

namespace geonorm {

constexpr int64_t kChunk = 256;  // rows

// Where statistics go: shift, mean of x − shift and rstd, or, without shift, mean and variance.
template <class M>
struct MomentsOutput {
  M *shift, *mean, *spread;
  int64_t groups;
  double eps;
};

template <class A>
GEONORM_INLINE void end_chunk(A* centre, A* sum, A* square, double* mean, double* squares,
                              double done, double mass, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) {
    const double offset = sum[c] / mass;
    const double chunk = square[c] - sum[c] * offset;
    merge_moments(mean[c], squares[c], done, centre[c] + offset, chunk < 0 ? 0 : chunk, mass);
    centre[c] = static_cast<A>(mean[c]);
    sum[c] = square[c] = 0;
  }
}

template <class M>
GEONORM_INLINE void write_moments(const double* mean, const double* squares, double mass,
                                  int64_t width, MomentsOutput<M> out) {
  for (int64_t g = 0; g < out.groups; ++g, mean += width, squares += width) {
    double middle = mean[0], square = squares[0];
    if (width > 1) {
      for (int64_t c = 1; c < width; ++c) middle += mean[c];
      middle /= width;
      square = 0;
      for (int64_t c = 0; c < width; ++c) {
        const double apart = mean[c] - middle;
        square += squares[c] + mass * apart * apart;
      }
    }
    const double var = square / (mass * width);
    if (out.shift != nullptr) {
      out.shift[g] = near_mean(middle, var);
      out.mean[g] = middle - out.shift[g];
      out.spread[g] = 1 / std::sqrt(var + out.eps);
    } else {
      out.mean[g] = middle;
      out.spread[g] = var;
    }
  }
}

// Sums of sum_rows (row_sums.h). A is the type of the running sums.
template <class T, class A>
struct Moments {
  Slots slots;
  Matrix<T> rows;
  const Math<T>* weights;
  MomentsOutput<Math<T>> out;

  Moments(const Part& part, bool sorted, Matrix<T> rows, const Math<T>* weights,
          MomentsOutput<Math<T>> out)
      : slots(part, sorted, rows.channels * (3 * sizeof(A) + 2 * sizeof(double))), rows(rows),
        weights(weights), out(out) {}

  double* totals(int64_t k) const { return slots.template block<double>(k); }
  A* running(int64_t k) const { return reinterpret_cast<A*>(totals(k) + 2 * rows.channels); }

  // Only float64 adds up weights, and only the type of the rows does without.
  GEONORM_INLINE bool unweighted() const {
    if constexpr (std::is_same_v<A, float>) return true;
    return std::is_same_v<A, Math<T>> && weights == nullptr;
  }

  void enter(int64_t) {}

  template <int B>
  GEONORM_INLINE void add(int64_t k, int64_t, int64_t row, int64_t count) {
    Slot& slot = slots[k];
    if (unweighted()) {
      if (slot.first < 0) begin(k, row);
      by_blocks(rows.channels, row, count, [&](int64_t from, int64_t block) GEONORM_LAMBDA {
        accumulate<B>(running(k), from, block, A(1));
      });
      slot.pending += count;
      return;
    }
    for (int64_t r = row; r < row + count; ++r) {
      const double weight = weights[r];
      if (weight <= 0) continue;
      if (slot.first < 0) begin(k, r);
      accumulate<B>(running(k), r, 1, weight);
      slot.pending += 1;
      slot.pending_mass += weight;
    }
  }

  GEONORM_INLINE void rest(int64_t k) {
    const Slot& slot = slots[k];
    if (slot.pending >= std::min(slot.done, kChunk)) flush(k);
  }

  GEONORM_SELDOM void begin(int64_t k, int64_t row) {
    slots[k].first = row;
    const int64_t channels = rows.channels;
    double* mean = totals(k);
    A* centre = running(k);
    for (int64_t c = 0; c < channels; ++c) {
      centre[c] = read<A, 1>(rows.row(row) + c);
      mean[c] = centre[c];
      centre[channels + c] = centre[2 * channels + c] = 0;
      mean[channels + c] = 0;
    }
  }

  template <int B>
  GEONORM_INLINE void accumulate(A* centre, int64_t row, int64_t count, A weight) const {
    const int64_t channels = rows.channels;
    A *sum = centre + channels, *square = sum + channels;
    over_channels<B, A, kAbreast<B>>(channels, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value, U = decltype(u)::value;
      using V = Vec<A, W>;
      V middle[U], sums[U], squares[U];
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        middle[v] = raw<V>(centre + c + v * W);
        sums[v] = raw<V>(sum + c + v * W);
        squares[v] = raw<V>(square + c + v * W);
      }
      const T* x = rows.row(row) + c;
      for (int64_t r = 0; r < count; ++r, x += rows.stride) {
        fetch_ahead<U * W>(x, channels);
        GEONORM_UNROLL for (int v = 0; v < U; ++v) {
          const V apart = read<A, W>(x + v * W) - middle[v];
          const V weighed = std::is_same_v<A, float> ? apart : apart * weight;
          sums[v] += weighed;
          squares[v] += weighed * apart;
        }
      }
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        __builtin_memcpy(sum + c + v * W, &sums[v], sizeof(V));
        __builtin_memcpy(square + c + v * W, &squares[v], sizeof(V));
      }
    });
  }

  GEONORM_SELDOM void flush(int64_t k) {
    Slot& slot = slots[k];
    if (slot.pending == 0) return;
    A* centre = running(k);
    const int64_t channels = rows.channels;
    const double mass = weights ? slot.pending_mass : slot.pending;
    vectorized([&](auto) GEONORM_LAMBDA {
      end_chunk(centre, centre + channels, centre + 2 * channels, totals(k), totals(k) + channels,
                slot.mass, mass, channels);
    });
    slot.done += slot.pending;
    slot.mass += mass;
    slot.pending = 0;
    slot.pending_mass = 0;
  }

  void merge(int64_t k, Moments& other, int64_t j) {
    flush(k);
    other.flush(j);
    Slot &mine = slots[k], &theirs = other.slots[j];
    if (theirs.first < 0) return;
    double *to = totals(k), *from = other.totals(j);
    const int64_t channels = rows.channels;
    if (mine.first < 0) {
      std::copy(from, from + 2 * channels, to);
      mine = theirs;
      return;
    }
    for (int64_t c = 0; c < channels; ++c) {
      merge_moments(to[c], to[channels + c], mine.mass, from[c], from[channels + c], theirs.mass);
    }
    mine.mass += theirs.mass;
  }

  GEONORM_SELDOM void emit(int64_t k) {
    flush(k);
    const Slot& slot = slots[k];
    if (slot.first < 0) return;
    auto at = out;
    const int64_t offset = slot.instance * out.groups;
    if (at.shift != nullptr) at.shift += offset;
    at.mean += offset;
    at.spread += offset;
    vectorized([&](auto) GEONORM_LAMBDA {
      write_moments(totals(k), totals(k) + rows.channels, slot.mass, rows.channels / out.groups,
                    at);
    });
  }
};

}  // namespace geonorm
