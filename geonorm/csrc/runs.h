// Instances whose values lie in runs: normalization along the fastest axis of memory.
//
// Instance i is the union of the runs of `length` values from at(i) + piece[p] on, for every p.
#pragma once

#include <algorithm>
#include <cmath>

#include "segment_norm.h"

namespace geonorm {

struct Runs {
  const int64_t *base, *piece;  // without bases, instances of one run lie side by side
  int64_t instances, pieces, length;
  GEONORM_INLINE int64_t at(int64_t i) const { return base ? base[i] : i * length; }
  int64_t size() const { return pieces * length; }
};

// Some values of one instance: positions begin to end of its runs laid end to end.
struct Slice {
  const int64_t* piece;
  int64_t length, begin, end;

  // Calls f(offset, count) for consecutive values, at most kChunk at a time.
  template <class F>
  GEONORM_INLINE void over_chunks(F f) const {
    constexpr int64_t kChunk = 2048;
    int64_t p = begin == 0 ? 0 : begin / length, within = begin - p * length;
    for (int64_t at = begin; at < end;) {
      const int64_t count = std::min({end - at, length - within, kChunk});
      f(piece[p] + within, count);
      at += count;
      within += count;
      if (within == length) {
        within = 0;
        ++p;
      }
    }
  }
};

// Mass, mean and squared deviation of some values.
struct Moment {
  double mass = 0, mean = 0, squares = 0;

  GEONORM_INLINE void merge(const Moment& other) {
    if (other.mass == 0) return;
    if (mass == 0) mean = other.mean;
    merge_moments(mean, squares, mass, other.mean, other.squares, other.mass);
    mass += other.mass;
  }
};

// A sum in some vectors and, for what does not fill one, half of one and a single value.
template <int B, class A>
struct Lanes {
  static constexpr int U = kAbreast<B>, W = B / sizeof(A);
  Vec<A, W> wide[U] = {};
  Vec<A, W / 2> half = {};
  A rest = 0;

  template <class V>
  GEONORM_INLINE void add(int v, V x) {
    if constexpr (std::is_arithmetic_v<V>) {
      rest += x;
    } else if constexpr (sizeof(V) == sizeof(half)) {
      half += x;
    } else {
      wide[v] += x;
    }
  }
  GEONORM_INLINE A total() const {
    Vec<A, W> sum = wide[0];
    GEONORM_UNROLL for (int v = 1; v < U; ++v) sum += wide[v];
    return fold<W>(sum) + fold<W / 2>(half) + rest;
  }
  template <int N>
  static GEONORM_INLINE A fold(Vec<A, N> v) {
    if constexpr (N == 1) {
      return v;
    } else {
      Vec<A, N / 2> halves[2];
      __builtin_memcpy(halves, &v, sizeof(v));
      return fold<N / 2>(halves[0] + halves[1]);
    }
  }
};

// Sums a chunk around the mean of what came before it, or of its own beginning where that is less
// than an eighth of it; this bounds what the centring loses. What the centre is off by is taken out.
template <int B, class T>
GEONORM_INLINE Moment run_moment(const T* x, Slice slice) {
  using A = Math<T>;
  Moment total;
  slice.over_chunks([&](int64_t offset, int64_t count) GEONORM_LAMBDA {
    const T* values = x + offset;
    const double share = 1.0 / count;
    A centre = total.mean;
    if (total.mass * 8 < count) {
      const int64_t lead = std::min(count, std::max<int64_t>(64, count / 8));
      const A first = read<A, 1>(values);
      Lanes<B, A> around;
      over_channels<B, A, kAbreast<B>>(lead, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
        constexpr int W = decltype(w)::value, U = decltype(u)::value;
        GEONORM_UNROLL for (int v = 0; v < U; ++v) {
          around.add(v, read<A, W>(values + c + v * W) - first);
        }
      });
      centre = first + around.total() * static_cast<A>(1.0 / lead);
    }
    Lanes<B, A> sum, square;
    over_channels<B, A, kAbreast<B>>(count, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value, U = decltype(u)::value;
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        const auto apart = read<A, W>(values + c + v * W) - centre;
        sum.add(v, apart);
        square.add(v, apart * apart);
      }
    });
    const double off = sum.total(), squares = square.total() - off * off * share;
    total.merge({double(count), centre + off * share, squares < 0 ? 0 : squares});
  });
  return total;
}

// Of one instance: y = (x − centre) · gain + offset, and for the gradient
// grad_x = (g − ((x − centre) · along + level)) · gain.
template <class A>
struct RunLine {
  A centre, gain, offset, along = 0, level = 0;

  template <int W, class T>
  GEONORM_INLINE Vec<A, W> centred(const T* x) const {
    return read<A, W>(x) - centre;
  }
  template <class V>
  GEONORM_INLINE V affine(V centred) const {
    return centred * gain + offset;
  }
};

template <int B, bool past_cache, Activation activation, bool added, class T>
GEONORM_INLINE void normalize_run(const T* x, const T* residual, T* out, Slice slice,
                                  RunLine<Math<T>> at, Math<T> slope) {
  using A = Math<T>;
  slice.over_chunks([&](int64_t offset, int64_t count) GEONORM_LAMBDA {
    over_channels<B, A, kAbreast<B>>(count, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value, U = decltype(u)::value;
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        const int64_t k = offset + c + v * W;
        auto y = at.affine(at.template centred<W>(x + k));
        if constexpr (added) y += read<A, W>(residual + k);
        store<W>(std::bool_constant<past_cache>{}, out + k, activate<activation>(y, slope));
      }
    });
  });
}

// Σg and Σg·(x − centre), g the gradient before the activation.
struct RunProducts {
  double grads = 0, products = 0;
};

template <int B, Activation activation, class T>
GEONORM_INLINE RunProducts run_products(const T* grads, const T* x, Slice slice,
                                        RunLine<Math<T>> at, Math<T> slope) {
  using A = Math<T>;
  RunProducts total;
  slice.over_chunks([&](int64_t offset, int64_t count) GEONORM_LAMBDA {
    Lanes<B, A> sum, product;
    over_channels<B, A, kAbreast<B>>(count, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value, U = decltype(u)::value;
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        const int64_t k = offset + c + v * W;
        const auto centred = at.template centred<W>(x + k);
        auto grad = read<A, W>(grads + k);
        if constexpr (activation != Activation::none) {
          grad = deactivate<activation>(grad, at.affine(centred), slope);
        }
        sum.add(v, grad);
        product.add(v, grad * centred);
      }
    });
    total.grads += sum.total();
    total.products += product.total();
  });
  return total;
}

template <int B, bool past_cache, Activation activation, class T>
GEONORM_INLINE void run_gradients(const T* grads, const T* x, T* out, Slice slice,
                                  RunLine<Math<T>> at, Math<T> slope) {
  using A = Math<T>;
  slice.over_chunks([&](int64_t offset, int64_t count) GEONORM_LAMBDA {
    over_channels<B, A, kAbreast<B>>(count, [&](auto w, auto u, int64_t c) GEONORM_LAMBDA {
      constexpr int W = decltype(w)::value, U = decltype(u)::value;
      GEONORM_UNROLL for (int v = 0; v < U; ++v) {
        const int64_t k = offset + c + v * W;
        const auto centred = at.template centred<W>(x + k);
        auto grad = read<A, W>(grads + k);
        if constexpr (activation != Activation::none) {
          grad = deactivate<activation>(grad, at.affine(centred), slope);
        }
        const auto lost = centred * at.along + at.level;
        store<W>(std::bool_constant<past_cache>{}, out + k, (grad - lost) * at.gain);
      }
    });
  });
}

}  // namespace geonorm
